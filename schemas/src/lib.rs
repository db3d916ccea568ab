//! Pure data that crosses a process boundary.
