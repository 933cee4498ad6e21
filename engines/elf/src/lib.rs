//! ELF facts: interpreter, needed libraries, static or dynamic.
