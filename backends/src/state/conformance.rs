//! What every state store promises, as tests that each adapter passes unchanged.

pub mod samples;
