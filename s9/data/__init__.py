"""Where images come from, and what happens to them on the way to the device."""
