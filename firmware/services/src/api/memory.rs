//! Page and pool allocation for our own code.
