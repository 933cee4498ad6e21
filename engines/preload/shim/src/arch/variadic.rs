//! Functions with `...`, which stable Rust cannot define: entries that make their arguments an array.
