"""From pictures to reconstructions: finding the object, cropping, the trained model, and what is written."""
