//! End-to-end tests against real servers and real clients.
