//! Ports to what Dropgate keeps things in, and their adapters.
