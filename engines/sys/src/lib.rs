//! Raw system calls, and all the assembly of the project, one file per architecture under `arch/`.

#![no_std]
