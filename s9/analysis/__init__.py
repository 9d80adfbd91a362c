"""What a network is and what it looks at."""
