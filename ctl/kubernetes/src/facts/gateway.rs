//! What is kept of the Gateway API's objects.
