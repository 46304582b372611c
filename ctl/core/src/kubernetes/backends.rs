//! The backends of a Service's port: its slices as one.
