//! End-to-end tests: one binary, one module a theme. Each test starts the real program in a directory of its own.

#[cfg(test)]
mod harness_itself;
