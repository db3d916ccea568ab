//! Delivery: from the queue to the destination, verified.
