//! Against oci-wasm, with which `wkg`, Spin and wasmCloud push and pull components.

use std::fs;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_wasm::{WasmClient, WasmConfig};
use spinfer_tests::OciRegistry;
use tokio_rustls::rustls::crypto::ring;

use super::{UserFolder, guest};

fn client() -> WasmClient {
    // Another test of this process may have installed it.
    let _ = ring::default_provider().install_default();
    let config = ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() };
    WasmClient::new(Client::new(config))
}

#[tokio::test]
async fn oci_wasm_client_pulls_a_pushed_component() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/acme/iris:1.0.0", registry.address());
    let iris = guest("iris_classifier");
    let _ = home.done(&["registry", "push", &reference, &iris]);
    let reference: Reference = reference.parse().unwrap();
    let data = client().pull(&reference, &RegistryAuth::Anonymous).await.unwrap();
    assert_eq!(data.layers[0].data.as_ref(), fs::read(&iris).unwrap());

    // The manifest is the one that it would have pushed itself.
    let (_, config, _) =
        client().pull_manifest_and_config(&reference, &RegistryAuth::Anonymous).await.unwrap();
    let (theirs, _) = WasmConfig::from_component(&iris, None).await.unwrap();
    assert_eq!(config.layer_digests, theirs.layer_digests);
    assert_eq!((config.architecture, config.os), (theirs.architecture, theirs.os));
    let (ours, theirs) = (config.component.unwrap(), theirs.component.unwrap());
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(ours.imports), sorted(theirs.imports));
    assert_eq!(sorted(ours.exports), sorted(theirs.exports));
}

#[tokio::test]
async fn component_pushed_by_oci_wasm_client_is_pulled() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/acme/hello:1.0.0", registry.address());
    let hello = guest("hello_p2");
    let (config, layer) = WasmConfig::from_component(&hello, None).await.unwrap();
    let parsed: Reference = reference.parse().unwrap();
    client().push(&parsed, &RegistryAuth::Anonymous, layer, config, None).await.unwrap();
    let (pulled, text) = home.pull(&reference, &[]);
    assert!(pulled, "{text}");
    assert_eq!(fs::read(home.path("components/hello.wasm")).unwrap(), fs::read(&hello).unwrap());
}
