"""Where rays, pixels and samples are; mm and rad."""
