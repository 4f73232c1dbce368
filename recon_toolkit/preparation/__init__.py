"""From a user's photographs to a training set: found, cut out, sorted, split and judged before anything is trained."""
