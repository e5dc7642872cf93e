//! The logo.
