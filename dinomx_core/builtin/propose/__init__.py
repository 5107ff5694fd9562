"""A first config for images, after a look at them and at the machine: `dinomx init`. No torch."""
