//! Cases that drive the built binaries as processes, as an ordinary user. One file per theme.

mod building;
mod examples;
mod probes;
mod running;
mod terminal;
mod tidy;
mod workspace;
