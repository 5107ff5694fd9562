"""What the images of a config are like, and what the model will see of them: `dinomx data`."""
