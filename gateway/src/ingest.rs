//! Moving the bytes of uploads.

pub mod content_type;
pub mod reorder;
