"""What travels: volumes, scans, measurements, their noise and units."""
