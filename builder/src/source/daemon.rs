//! Images that Docker or Podman holds on this machine, by the daemon's "save" endpoint.
//!
//! What it sends is a docker-archive, kept in a file without a name until the image is flattened.

use std::{fs::File, io::Write as _, sync::Arc};

use super::{
    Image, Options, SourceError, docker_archive,
    files::{self, Files, TarFiles},
    registry,
};

/// An image of the first daemon that answers.
///
/// # Errors
/// [`SourceError::Daemon`], and those of docker-archives.
pub(super) fn image(name: &str, source: String, options: &Options) -> Result<Image, SourceError> {
    let mut silent = Vec::new();
    for daemon in &options.daemons {
        match registry::block_on(save(daemon, name, options)) {
            Ok(Saved::Archive(spool)) => {
                let path = files::descriptor_path(&spool);
                let tar = TarFiles::open(path, format!("the archive of {name} from {daemon}"), Some(spool))?;
                return docker_archive::image(&Files::Tar(tar), None, options.platform.as_ref(), source);
            }
            Ok(Saved::NoDaemon(why)) => silent.push(format!("{daemon} ({why})")),
            Err(error) => return Err(error),
        }
    }
    Err(SourceError::Daemon {
        image: name.to_owned(),
        why: format!("none answers at {}: start one, or set DOCKER_HOST", silent.join(", ")),
    })
}

enum Saved {
    Archive(Arc<File>),
    NoDaemon(String),
}

async fn save(daemon: &str, name: &str, options: &Options) -> Result<Saved, SourceError> {
    let failed = |why: String| SourceError::Daemon { image: name.to_owned(), why };
    let builder = reqwest::Client::builder().no_proxy().user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")));
    // No TLS here; but the client wants a configuration.
    let (builder, base) = if let Some(path) = daemon.strip_prefix("unix://") {
        (builder.unix_socket(path), "http://localhost".to_owned())
    } else if let Some(host) = daemon.strip_prefix("tcp://").or_else(|| daemon.strip_prefix("http://")) {
        (builder, format!("http://{}", host.trim_end_matches('/')))
    } else {
        return Err(failed(format!(
            "{daemon} is no unix:// or tcp:// address: use `docker save NAME | coracle build -` there"
        )));
    };
    let tls = registry::plain_tls(options)?;
    let client = builder.tls_backend_preconfigured(tls).build().map_err(|error| failed(registry::reason(&error)))?;
    let mut url = reqwest::Url::parse(&base).map_err(|_| failed(format!("{daemon} is no address")))?;
    if let Ok(mut path) = url.path_segments_mut() {
        // The daemon takes slashes of a name as they are.
        path.extend(["images"]).extend(name.split('/')).extend(["get"]);
    }
    let mut response = match client.get(url).send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(Saved::NoDaemon(registry::reason(&error))),
        Err(error) => return Err(failed(format!("{daemon}: {}", registry::reason(&error)))),
    };
    let status = response.status();
    if !status.is_success() {
        let text = response.text().await.unwrap_or_default();
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let said = said.and_then(|said| Some(said.get("message")?.as_str()?.to_owned())).unwrap_or_default();
        let why = if status.as_u16() == 404 || said.contains("no such image") || said.contains("not known") {
            format!("the one at {daemon} has no image of that name: check `docker images` or `podman images`")
        } else {
            format!("the one at {daemon} answers {status} {}", registry::tame(&said))
        };
        return Err(failed(why));
    }
    let scratch = &options.scratch;
    let unwritable = |cause| SourceError::file("write a temporary file in", scratch, cause);
    let mut file = tempfile::tempfile_in(scratch).map_err(unwritable)?;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => file.write_all(&chunk).map_err(unwritable)?,
            Ok(None) => return Ok(Saved::Archive(Arc::new(file))),
            Err(error) => return Err(failed(format!("{daemon} breaks off: {}", registry::reason(&error)))),
        }
    }
}
