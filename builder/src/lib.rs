//! The builder: a container image in, one executable file out.
//!
//! Data flows one way: [`source`] → [`flatten`] → [`patch`] → [`pack`]; [`packages`] reads what a tree's package
//! manager says of it. [`capture`] makes a tree of a run on this host. [`store`] keeps what was pulled and containers,
//! [`launch`] hands their runs to the embedded stub, [`cli`] turns arguments into a plan and runs it. Only `cli` reads
//! the environment, and only `main.rs` exits.

pub mod artifacts;
pub mod capture;
pub mod cli;
pub mod flatten;
pub mod launch;
pub mod pack;
pub mod packages;
pub mod patch;
pub mod source;
pub mod store;
