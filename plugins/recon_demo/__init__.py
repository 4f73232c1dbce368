"""Looking at results in a browser: a web demo that takes photographs, and folders of results as a small site."""
