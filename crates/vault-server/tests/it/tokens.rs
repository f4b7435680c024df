//! Proving to be somebody.

use std::collections::BTreeSet;
use std::time::Duration;

use bulla_kek::Identity;
use bulla_vault::Permission;
use bulla_vault_server::{ApiOptions, Audience, Fault, Faults};
use reqwest::header::AUTHORIZATION;

use crate::support::{Answer, USER, World, answer, user};

async fn with_header(world: &World, header: Option<&str>) -> Answer {
    let mut request = world.client.get(format!("{}/keys?api-version=7.4", world.url));
    if let Some(header) = header {
        request = request.header(AUTHORIZATION, header);
    }
    answer(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_proves_nothing_is_challenged() {
    let world = World::new().await;
    let expired = world.api.tokens().issue(&user(), &Audience::Vault, Duration::ZERO);
    let exchange = world.api.tokens().issue(&user(), &Audience::TokenExchange, Duration::from_secs(60));
    let other = World::new().await;
    let foreign = other.token(&user());
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    for header in [
        None,
        Some("Basic YTpi".to_owned()),
        bearer(""),
        bearer("x.y.z"),
        bearer(&expired),
        bearer(&exchange),
        bearer(&foreign),
    ] {
        let answer = with_header(&world, header.as_deref()).await;
        assert_eq!(answer.error(), (401, "Unauthorized", ""), "{header:?}");
        let challenge = answer.challenge.unwrap();
        let tenant = world.api.tokens().tenant();
        let expected = format!(r#"Bearer authorization="{url}/{tenant}", resource="{url}""#, url = world.url);
        assert!(challenge.starts_with(&expected), "{challenge}");
    }
    let token = world.token(&user());
    with_header(&world, Some(&format!("bearer {token}"))).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_an_api_version_nothing_is_answered() {
    let world = World::new().await;
    for query in ["", "?api-version=", "?api-version=6.0", "?version=7.4"] {
        let request =
            world.client.get(format!("{}/keys{query}", world.url)).bearer_auth(world.token(&user()));
        assert_eq!(answer(request.send().await.unwrap()).await.error(), (400, "BadParameter", ""), "{query}");
    }
    for version in ["7.0", "7.6", "2025-07-01", "7.6-preview.2"] {
        let url = format!("{}/keys?API-Version={version}", world.url);
        let request = world.client.get(url).bearer_auth(world.token(&user()));
        answer(request.send().await.unwrap()).await.ok();
    }
}

async fn managed(world: &World, query: &str, header: Option<&str>) -> Answer {
    let mut request = world.client.get(format!("{}?api-version=2019-08-01{query}", world.identity.0));
    if let Some(header) = header {
        request = request.header("X-IDENTITY-HEADER", header);
    }
    answer(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn managed_identities_get_tokens_for_the_resource_of_the_challenge() {
    let identities = BTreeSet::from([Identity::System, user()]);
    let token_faults = Faults::new();
    let options =
        ApiOptions { identities: Some(identities), token_faults: token_faults.clone(), ..Default::default() };
    let world = World::with(options, true).await;
    world.vault.set_policy(&Identity::System, &[Permission::LIST]).unwrap();
    let header = Some(world.identity.1.as_str());
    let resource = format!("&resource={}", world.url);

    for (id, client_id) in [("", "system"), ("&client_id=registry", USER), ("&mi_res_id=registry", USER)] {
        let issued = managed(&world, &format!("{resource}{id}"), header).await.ok();
        assert_eq!(issued["token_type"], "Bearer");
        assert_eq!(issued["client_id"], client_id);
        assert!(issued["expires_on"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000);
        let token = issued["access_token"].as_str().unwrap();
        with_header(&world, Some(&format!("Bearer {token}"))).await.ok();
    }
    // A token for another resource is nobody's here.
    let issued = managed(&world, "&resource=https://storage.azure.com", header).await.ok();
    let token = issued["access_token"].as_str().unwrap();
    assert_eq!(with_header(&world, Some(&format!("Bearer {token}"))).await.status, 401);

    for query in ["&client_id=stranger", "&client_id=system", "&client_id="] {
        assert_eq!(managed(&world, &format!("{resource}{query}"), header).await.status, 400, "{query}");
    }
    assert_eq!(managed(&world, "", header).await.status, 400, "no resource");
    assert_eq!(managed(&world, "&resource=http://plain", header).await.status, 400);
    for wrong in [None, Some(""), Some("guess")] {
        assert_eq!(managed(&world, &resource, wrong).await.status, 401, "{wrong:?}");
    }
    token_faults.next(1, &Fault::answer(500, "InternalServerError"));
    assert_eq!(managed(&world, &resource, header).await.status, 500);
    assert!(world.audit().iter().any(|line| line["operation"] == "token" && line["identity"] == USER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn workloads_exchange_their_federated_token() {
    let world = World::new().await;
    let tokens = world.api.tokens();
    let federated = tokens.issue(&user(), &Audience::TokenExchange, Duration::from_secs(60));
    let exchange = async |tenant: &str, client: &str, assertion: &str| {
        let scope = format!("{}/.default", world.url);
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("scope", &scope),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let url = format!("{}/{tenant}/oauth2/v2.0/token", world.url);
        answer(world.client.post(url).body(body).send().await.unwrap()).await
    };
    let issued = exchange(tokens.tenant(), USER, &federated).await.ok();
    let token = issued["access_token"].as_str().unwrap();
    with_header(&world, Some(&format!("Bearer {token}"))).await.ok();
    assert_eq!(exchange(tokens.tenant(), "another", &federated).await.status, 401);
    assert_eq!(
        exchange(tokens.tenant(), USER, token).await.status,
        401,
        "an access token is no federated one"
    );
    assert_eq!(exchange("common", USER, &federated).await.status, 400);
}
