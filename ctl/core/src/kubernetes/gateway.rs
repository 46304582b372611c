//! TCPRoutes and UDPRoutes of the Gateway API.
