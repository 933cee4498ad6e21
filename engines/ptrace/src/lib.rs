//! The `ptrace` engine: interception from outside, by a tracer process.
