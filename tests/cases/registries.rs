//! Registries: a real one, with and without a password and TLS; token servers, mirrors, proxies, credential helpers; which
//! image a name means, and when the store's copy will do.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    Fake, Registry, Reply, Sandbox,
    oci::{Layer, OciImage},
    skip,
};
use serde_json::{Value, json};

/// An OCI layout with one small image.
fn layout(sandbox: &Sandbox) -> PathBuf {
    let layout = sandbox.path().join("layout");
    let config = json!({"Cmd": ["/hello"], "Env": ["A=b"]});
    OciImage::new(config).layer(Layer::new().file("hello", 0o755, b"#!/bin/sh\n")).write(&layout).unwrap();
    layout
}

fn source(layout: &Path) -> String {
    format!("oci:{}:latest", layout.display())
}

/// The digest of the image's manifest.
fn manifest(layout: &Path) -> String {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// Puts a document into a layout; its digest and size.
fn put(layout: &Path, document: &Value) -> (String, usize) {
    let text = document.to_string();
    let file = layout.join("new");
    fs::write(&file, &text).unwrap();
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    let hex = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    fs::rename(file, layout.join("blobs/sha256").join(&hex)).unwrap();
    (format!("sha256:{hex}"), text.len())
}

/// Names a document in a layout's index.
fn name(layout: &Path, tag: &str, (digest, size): &(String, usize)) {
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"].as_array_mut().unwrap().push(json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }));
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn a_real_registry_gives_oci_and_docker_images() {
    if skip::lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let registry = Registry::open();
    registry.push(&source(&layout), "lib/deep/er/hello:1.0", &[]);
    registry.push(&source(&layout), "lib/hello:docker", &["--format", "v2s2"]);
    registry.push(&source(&layout), "lib/hello:zstd", &["--dest-compress-format", "zstd", "--dest-compress"]);
    let at = registry.address();
    for name in ["lib/deep/er/hello:1.0", "lib/hello:docker", "lib/hello:zstd"] {
        let output = sandbox.coracle(["pull", &format!("{at}/{name}")]);
        let named = output.ok();
        assert!(named.starts_with(&format!("{at}/{}@sha256:", name.split(':').next().unwrap())), "{output}");
        // By digest, and by tag and digest (which then decides).
        sandbox.coracle(["pull", named]).ok();
        let digest = named.split('@').nth(1).unwrap();
        sandbox.coracle(["pull", &format!("docker://{at}/{name}@{digest}")]).ok();
    }
    sandbox.coracle(["pull", &format!("{at}/lib/none")]).fails_with(&["no image", "lib/none"]);
    sandbox.coracle(["pull", &format!("{at}/lib/hello:none")]).fails_with(&["no image", "check the name and the tag"]);
}

#[test]
fn the_store_will_do_where_that_was_said() {
    if skip::lacks(&["docker-registry", "skopeo"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let registry = Registry::open();
    registry.push(&source(&layout), "hello:1", &[]);
    let reference = format!("{}/hello:1", registry.address());
    let build = |options: &[&str]| {
        let args = [&["build", &reference, "-o", "x.run"], options].concat();
        sandbox.coracle(args)
    };
    build(&["--pull=never"]).fails_with(&["not in the store", "--pull=never"]);
    let pinned = sandbox.coracle(["pull", &reference]).ok().to_owned();
    drop(registry);
    build(&["--pull=never"]).ok();
    build(&["--pull=missing"]).ok();
    let fallen_back = build(&[]);
    fallen_back.ok();
    assert!(fallen_back.stderr.contains("as it was pulled before"), "{fallen_back}");
    build(&["--pull=always"]).fails_with(&["cannot reach the registry", "Connection refused"]);
    sandbox.coracle(["pull", &reference]).fails_with(&["cannot reach the registry"]);
    sandbox.coracle(["pull", &pinned]).ok();
    sandbox.coracle(["build", "--pull=always", &pinned, "-o", "y.run"]).ok();
    assert!(sandbox.work("y.run").exists());
}

#[test]
fn a_password_is_asked_kept_used_and_forgotten() {
    if skip::lacks(&["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let registry = Registry::with_password("tester", "s3cret");
    registry.push(&source(&layout), "hello:1", &["--dest-creds", "tester:s3cret"]);
    let (at, reference) = (registry.address(), format!("{}/hello:1", registry.address()));
    let login = |password: &str| {
        let input = format!("{password}\n");
        sandbox.run_with_input(harness::coracle(), ["login", &at, "-u", "tester", "--password-stdin"], input.as_bytes())
    };
    sandbox.coracle(["pull", &reference]).fails_with(&["denied", "coracle login"]);
    let wrong = login("wr0ng");
    wrong.fails_with(&["does not accept", "tester"]);
    assert!(!wrong.stderr.contains("wr0ng"), "{wrong}");
    let file = sandbox.path().join("home/.coracle/auth.json");
    assert!(!file.exists(), "a wrong password is not kept");
    login("s3cret").ok();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    sandbox.coracle(["pull", &reference]).ok();
    sandbox.coracle(["logout", &at]).ok();
    sandbox.coracle(["pull", &reference]).fails_with(&["denied"]);
    sandbox.coracle(["login", &at, "-u", "tester", "-p", "s3cret"]).ok();
    sandbox.coracle(["pull", &reference]).ok();
    // A wrong password from elsewhere is named as such.
    sandbox.coracle(["logout", &at]).ok();
    let stale = json!({"auths": {(format!("https://{at}/v2/")): {"auth": "dGVzdGVyOm9sZA=="}}});
    sandbox.write("../home/.docker/config.json", stale.to_string());
    sandbox.coracle(["pull", &reference]).fails_with(&["does not accept", "tester"]);
}

#[test]
fn credentials_come_from_files_and_helpers() {
    if skip::lacks(&["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let mut sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let registry = Registry::with_password("tester", "s3cret");
    registry.push(&source(&layout), "team/hello:1", &["--dest-creds", "tester:s3cret"]);
    let (at, reference) = (registry.address(), format!("{}/team/hello:1", registry.address()));
    // echo -n tester:s3cret | base64
    let auths = |key: &str| json!({"auths": {(key): {"auth": "dGVzdGVyOnMzY3JldA=="}}}).to_string();
    let file = sandbox.write("auth.json", auths(&format!("{at}/team")));
    sandbox.set("REGISTRY_AUTH_FILE", &file);
    sandbox.coracle(["pull", &reference]).ok();
    sandbox.unset("REGISTRY_AUTH_FILE");
    sandbox.coracle(["pull", &reference]).code_is(125);
    sandbox.write("../home/.config/containers/auth.json", auths(&at));
    sandbox.coracle(["pull", &reference]).ok();
    fs::remove_file(sandbox.path().join("home/.config/containers/auth.json")).unwrap();
    // Docker's helpers, for one registry and for all.
    let helper = "#!/bin/sh\nread -r server; [ \"$1\" = get ] && echo \"$server\" >>\"$HOME/asked\"\n\
                  echo '{\"ServerURL\":\"x\",\"Username\":\"tester\",\"Secret\":\"s3cret\"}'\n";
    let path = sandbox.write("bin/docker-credential-test", helper);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:/usr/bin:/bin", sandbox.work("bin").display());
    sandbox.set("PATH", search);
    for config in
        [json!({"credHelpers": {(at.clone()): "test"}}), json!({"auths": {(at.clone()): {}}, "credsStore": "test"})]
    {
        sandbox.write("../home/.docker/config.json", config.to_string());
        sandbox.coracle(["pull", &reference]).ok();
        let asked = fs::read_to_string(sandbox.path().join("home/asked")).unwrap();
        assert_eq!(asked, format!("{at}\n"));
        fs::remove_file(sandbox.path().join("home/asked")).unwrap();
    }
    sandbox.write("../home/.docker/config.json", json!({"credsStore": "missing"}).to_string());
    sandbox.coracle(["pull", &reference]).fails_with(&["docker-credential-missing", "cannot run it"]);
}

/// A registry that wants a bearer token, and the token server, in one.
fn token_registry(layout: &Path, port: &str, expires: bool) -> Fake {
    let realm = format!("http://{port}/token");
    Fake::registry(layout, move |request| {
        if request.path.starts_with("/token") {
            // echo -n tester:s3cret | base64
            let known = match request.method.as_str() {
                "POST" => request.body.contains("refresh_token=IDENTITY"),
                _ => matches!(request.header("authorization"), "" | "Basic dGVzdGVyOnMzY3JldA=="),
            };
            let scoped = request.path.contains("scope=repository%3Ax%3Apull")
                || request.body.contains("scope=repository%3Ax%3Apull");
            let token = match (known, scoped) {
                (false, _) => return Some(Reply::new(401, r#"{"details":"incorrect username or password"}"#)),
                (true, true) => format!("T{}", request.before),
                (true, false) => "LOGIN".to_owned(),
            };
            return Some(Reply::new(200, json!({"access_token": token, "expires_in": 60}).to_string()));
        }
        let given = request.header("authorization");
        // The first token dies as soon as it has been used for a manifest.
        let good = if expires && request.path.contains("/blobs/") {
            given == "Bearer T1"
        } else {
            given.starts_with("Bearer ")
        };
        (!good).then(|| {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:x:pull\"");
            Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).header("WWW-Authenticate", challenge)
        })
    })
}

/// Starts a token registry whose realm is another such server, as its own port is not known before it runs.
fn with_tokens(layout: &Path, expires: bool) -> (Fake, Fake) {
    let tokens = token_registry(layout, "unused", false);
    let registry = token_registry(layout, &tokens.address(), expires);
    (registry, tokens)
}

#[test]
fn bearer_tokens_are_fetched_and_renewed() {
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let (registry, tokens) = with_tokens(&layout, true);
    sandbox.coracle(["pull", &format!("{}/x", registry.address())]).ok();
    assert_eq!(tokens.count("GET", "/token"), 2, "one at first, one when it had expired");
    let asked = &tokens.requests()[0];
    assert!(asked.path.contains("service=fake"), "{asked:?}");
}

#[test]
fn token_servers_take_passwords_and_identity_tokens() {
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let (registry, tokens) = with_tokens(&layout, false);
    let at = registry.address();
    sandbox.coracle(["login", &at, "-u", "tester", "-p", "wrong"]).fails_with(&["does not accept", "tester"]);
    sandbox.coracle(["login", &at, "-u", "tester", "-p", "s3cret"]).ok();
    sandbox.coracle(["pull", &format!("{at}/x")]).ok();
    assert!(tokens.requests().iter().any(|request| request.path.contains("account=tester")));
    sandbox.coracle(["logout", &at]).ok();
    let identity = json!({"auths": {(at.clone()): {"identitytoken": "IDENTITY"}}});
    sandbox.write("../home/.docker/config.json", identity.to_string());
    sandbox.coracle(["pull", &format!("{at}/x")]).ok();
    assert_eq!(tokens.count("POST", "/token"), 1);
}

#[test]
fn plain_http_is_for_this_machine_and_for_who_asks() {
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let fake = Fake::registry(&layout, |_| None);
    // 0.0.0.0 leads here too, and is no loopback address.
    let reference = format!("{}/x", fake.address().replace("127.0.0.1", "0.0.0.0"));
    sandbox.coracle(["pull", &reference]).fails_with(&["does not speak https", "--insecure"]);
    assert_eq!(fake.requests().len(), 0, "nothing was asked in the open");
    sandbox.coracle(["pull", "--insecure", &reference]).ok();
    sandbox
        .coracle(["pull", "127.0.0.1:1/x"])
        .fails_with(&["cannot reach the registry 127.0.0.1:1", "Connection refused"]);
    sandbox.coracle(["pull", "no-such-host.invalid/x"]).fails_with(&["cannot reach the registry no-such-host.invalid"]);
}

#[test]
fn mirrors_come_first_and_the_registry_last() {
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let (good, bad) = (Fake::registry(&layout, |_| None), Fake::start(|_| Reply::new(404, "")));
    let config = format!(
        "engine = \"auto\"\n[registry.\"registry.invalid\"]\nmirrors = [\"{}\", \"http://{}\"]\n[other]\nx = 1\n",
        bad.address(),
        good.address()
    );
    sandbox.write("../home/.config/coracle.toml", config);
    let output = sandbox.coracle(["pull", "registry.invalid/x"]);
    assert!(output.ok().starts_with("registry.invalid/x@"), "{output}");
    assert!(output.stderr.contains(&format!("mirror {}", bad.address())), "{output}");
    // What no mirror has, the registry is asked for, and its error is the one that is told.
    sandbox.coracle(["pull", "registry.invalid/y"]).fails_with(&["cannot reach the registry registry.invalid"]);
    sandbox.write(
        "../home/.config/coracle.toml",
        "[registry.\"registry.invalid\"]\nmirrors = [\"http://mirror.invalid\"]\n",
    );
    sandbox.coracle(["pull", "registry.invalid/x"]).fails_with(&["plain http", "http://mirror.invalid"]);
    sandbox.write("../home/.config/coracle.toml", "[registry.\"x\"\n");
    sandbox.coracle(["pull", "registry.invalid/x"]).fails_with(&["cannot understand", "coracle.toml"]);
}

#[test]
fn a_proxy_is_used_unless_the_environment_says_otherwise() {
    let mut sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let proxy = Fake::start({
        let layout = layout.clone();
        let registry = Fake::registry(&layout, |_| None);
        move |request| {
            let Some(path) = request.path.strip_prefix("http://registry.invalid") else { return Reply::new(502, "") };
            // Hand it on, as a proxy does.
            let output = Command::new("curl")
                .args(["-s", "-X", &request.method, &format!("http://{}{path}", registry.address())])
                .output()
                .unwrap();
            Reply::new(200, output.stdout)
        }
    });
    sandbox.write(
        "../home/.config/coracle.toml",
        "[registry.\"reg.invalid\"]\ninsecure = true\nmirrors = [\"http://registry.invalid\"]\n",
    );
    sandbox.coracle(["pull", "reg.invalid/x"]).code_is(125);
    sandbox.set("http_proxy", format!("http://{}", proxy.address()));
    if !skip::lacks(&["curl"]) {
        sandbox.coracle(["pull", "reg.invalid/x"]).ok();
        assert!(proxy.count("GET", "http://registry.invalid/v2/x/blobs/") > 0);
    }
    let before = proxy.requests().len();
    sandbox.set("no_proxy", "registry.invalid");
    sandbox.coracle(["pull", "reg.invalid/x"]).code_is(125);
    assert_eq!(proxy.requests().len(), before);
}

#[test]
fn indexes_lead_to_the_platform_that_is_wanted() {
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let image = manifest(&layout);
    let size = fs::metadata(layout.join("blobs").join(image.replace(':', "/"))).unwrap().len();
    let entry = |platform: Value, digest: &str| json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": platform});
    let absent = format!("sha256:{}", "0".repeat(64));
    let inner = put(
        &layout,
        &json!({"schemaVersion": 2, "manifests": [
            entry(json!({"os": "linux", "architecture": "arm64", "variant": "v8"}), &absent),
            entry(json!({"os": "linux", "architecture": "amd64"}), &image),
        ]}),
    );
    let outer = put(
        &layout,
        &json!({"schemaVersion": 2, "manifests": [
            entry(json!({"os": "unknown", "architecture": "unknown"}), &absent),
            {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner.0, "size": inner.1},
        ]}),
    );
    let foreign = put(
        &layout,
        &json!({"schemaVersion": 2, "manifests": [
            entry(json!({"os": "linux", "architecture": "arm64", "variant": "v8"}), &absent),
            entry(json!({"os": "windows", "architecture": "amd64"}), &absent),
        ]}),
    );
    // An index in which every index leads to itself cannot be made; a long chain can.
    let mut chain = inner.clone();
    for _ in 0..40 {
        chain = put(
            &layout,
            &json!({"schemaVersion": 2, "manifests": [
                {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": chain.0, "size": chain.1},
            ]}),
        );
    }
    for (tag, document) in [("nested", &outer), ("foreign", &foreign), ("chain", &chain)] {
        name(&layout, tag, document);
    }
    let fake = Fake::registry(&layout, |_| None);
    let at = format!("{}/x", fake.address());
    let output = sandbox.coracle(["pull", &format!("{at}:nested")]);
    assert_eq!(output.ok(), format!("{at}@{image}"));
    sandbox
        .coracle(["pull", &format!("{at}:foreign")])
        .fails_with(&["no image for linux/amd64", "linux/arm64/v8, windows/amd64"]);
    sandbox
        .coracle(["pull", "--platform=linux/arm64", &format!("{at}:foreign")])
        .fails_with(&["cannot run linux/arm64", "windows/amd64"]);
    sandbox
        .coracle(["pull", "--platform=linux/386", &format!("{at}:latest")])
        .fails_with(&["no image for linux/386", "linux/amd64"]);
    sandbox.coracle(["pull", "--platform=x", &at]).code_is(125);
    sandbox.coracle(["pull", &format!("{at}:chain")]).code_is(125);
    assert!(fake.count("GET", "/manifests/") < 100);
}

#[test]
fn what_is_no_image_is_refused_in_words() {
    let sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let fake = Fake::registry(&layout, |request| {
        let digest = format!("sha256:{}", "1".repeat(64));
        let artifact = json!({"schemaVersion": 2, "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest, "size": 2}, "layers": []});
        let foreign = json!({"schemaVersion": 2,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": 2},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": digest, "size": 2, "urls": ["https://example.invalid/x"]}]});
        match request.path.rsplit('/').next()? {
            "old" => Some(Reply::new(200, r#"{"schemaVersion":1,"name":"x","tag":"old","fsLayers":[]}"#)),
            "chart" => Some(Reply::new(200, artifact.to_string())),
            "foreign" => Some(Reply::new(200, foreign.to_string())),
            "html" => Some(Reply::new(200, "<html>Welcome to the hotel's network\n</html>")),
            _ => None,
        }
    });
    let pull = |tag: &str| sandbox.coracle(["pull", &format!("{}/x:{tag}", fake.address())]);
    pull("old").fails_with(&["schema 1"]);
    pull("chart").fails_with(&["artifact", "helm"]);
    pull("foreign").fails_with(&["foreign"]);
    pull("html").fails_with(&["cannot read the manifest"]);
}

#[test]
fn certificates_are_checked_and_private_authorities_are_believed() {
    if skip::lacks(&["docker-registry", "skopeo", "openssl"]) {
        return;
    }
    let mut sandbox = Sandbox::new();
    let layout = layout(&sandbox);
    let openssl = |args: &str, dir: &Path| {
        let status = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(status.status.success(), "{args}: {}", String::from_utf8_lossy(&status.stderr));
    };
    let pki = sandbox.make_dir("pki");
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=test-ca", &pki);
    fs::write(pki.join("san"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    for who in ["server", "client"] {
        openssl(&format!("req -newkey rsa:2048 -nodes -keyout {who}.key -out {who}.csr -subj /CN={who}"), &pki);
        openssl(
            &format!(
                "x509 -req -in {who}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile san -out {who}.crt"
            ),
            &pki,
        );
    }
    let tls = |more: &str| {
        let pki = pki.display();

        format!("  tls: {{certificate: {pki}/server.crt, key: {pki}/server.key{more}}}\n")
    };
    let registry = Registry::start_tls(|_| tls(""));
    registry.push(&source(&layout), "hello:1", &[]);
    let (at, reference) = (registry.address(), format!("{}/hello:1", registry.address()));
    sandbox.coracle(["pull", &reference]).fails_with(&["cannot trust the registry", "certs.d"]);
    sandbox.coracle(["pull", "--insecure", &reference]).ok();
    sandbox.set("SSL_CERT_FILE", pki.join("ca.crt"));
    sandbox.coracle(["pull", &reference]).ok();
    sandbox.set("SSL_CERT_FILE", pki.join("nothing"));
    sandbox.coracle(["pull", &reference]).fails_with(&["SSL_CERT_FILE"]);
    sandbox.unset("SSL_CERT_FILE");
    let certs = format!("../home/.config/containers/certs.d/{at}");
    sandbox.write(&format!("{certs}/ca.crt"), fs::read(pki.join("ca.crt")).unwrap());
    sandbox.coracle(["pull", &reference]).ok();
    // A registry that wants to know who asks.
    let strict = Registry::start_tls(|_| tls(&format!(", clientcas: [{}/ca.crt]", pki.display())));
    let (at, reference) = (strict.address(), format!("{}/hello:1", strict.address()));
    let certs = format!("../home/.docker/certs.d/{at}");
    sandbox.write(&format!("{certs}/ca.crt"), fs::read(pki.join("ca.crt")).unwrap());
    sandbox.coracle(["pull", &reference]).code_is(125);
    sandbox.write(&format!("{certs}/me.cert"), fs::read(pki.join("client.crt")).unwrap());
    sandbox.write(&format!("{certs}/me.key"), fs::read(pki.join("client.key")).unwrap());
    sandbox.coracle(["pull", &reference]).fails_with(&["no image"]);
}
