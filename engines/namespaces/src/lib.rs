//! The `namespaces` engine: user and mount namespaces, native speed.
