//! Cases that drive the built binaries as processes, as an ordinary user. One file per theme.

mod apptainer;
mod archives;
mod background;
mod building;
mod cache;
mod containers;
mod damage;
mod debugging;
mod devices;
mod downloads;
mod examples;
mod hammer;
mod probes;
mod programs;
mod registries;
mod root;
mod running;
mod runs;
mod sources;
mod store;
mod suites;
mod terminal;
mod tidy;
mod tutorial;
mod workspace;
mod writable;
