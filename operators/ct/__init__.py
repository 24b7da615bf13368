"""Line integrals of CT."""
