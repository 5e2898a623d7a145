"""What the backend for the OpenClaw gateway is made of."""
