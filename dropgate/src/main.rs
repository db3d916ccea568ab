//! The dropgate program.
fn main() {}
