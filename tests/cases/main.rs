//! Cases that drive the built binaries as processes, as an ordinary user. One file per theme.

mod examples;
mod tidy;
mod workspace;
