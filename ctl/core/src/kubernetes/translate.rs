//! A Service as services of the engine.
