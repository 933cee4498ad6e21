//! `coracle protect` and `unprotect`: what `rm` and `rmi` leave alone.

use anyhow::bail;

use super::each::each;
use crate::{
    cli::{args::ProtectArgs, source},
    source::{Reference, open_store},
    store::containers::ContainerError,
};

/// Protects containers and images, or no longer.
pub(super) fn run(args: &ProtectArgs, protected: bool, quiet: bool) -> anyhow::Result<u8> {
    let store = open_store(&source::bare(quiet)?)?;
    each(&args.what, |given| {
        match store.containers().resolve(given) {
            Ok(container) => return Ok(container.change(|settings| settings.protected = protected)?),
            Err(ContainerError::NoSuch { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if let Ok(reference) = given.parse::<Reference>()
            && store.protect_image(&reference.to_string(), protected)?
        {
            return Ok(());
        }
        bail!("no such container or image: {given}: see `coracle ps` and `coracle images`")
    })
}
