//! STS: what a credential reaches, tried at S3 itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use tidemill_aws::{Aws, AwsSettings};
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_blocks::check::Found;
use tidemill_blocks::grants::{Credential, Grants, MAX_TTL, Scope, Verbs};
use tidemill_blocks::objects::{delete, error, get, put};
use tidemill_blocks_test::{Harness, Skip, run_real};

use crate::support::{MINISTACK, MOTO, ROLE, connect, iam, settings, with_bucket};

const HOUR: Duration = MAX_TTL;
const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
const ALLOWS: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}"#;

/// An issuer, and the store that takes its credentials.
struct Rig {
    aws: Aws,
    grants: Arc<dyn Grants>,
    /// Everything in the bucket.
    all: Arc<dyn ObjectStore>,
}

impl Rig {
    async fn new(variable: &str, env: &Env) -> Result<Self, Skip> {
        let aws = with_bucket(variable, env).await?;
        let endpoint = settings(variable, env)?.endpoint.unwrap();
        let name = ROLE.rsplit('/').next().unwrap();
        iam(&endpoint, &format!("Action=CreateRole&Version=2010-05-08&RoleName={name}&AssumeRolePolicyDocument={}", encoded(TRUST))).await;
        let put = format!("Action=PutRolePolicy&Version=2010-05-08&RoleName={name}&PolicyName=all&PolicyDocument={}", encoded(ALLOWS));
        iam(&endpoint, &put).await;
        Ok(Self { grants: aws.grants().unwrap(), all: aws.objects().unwrap(), aws })
    }

    async fn issue(&self, prefix: &str, verbs: Verbs) -> Result<Credential> {
        self.grants.issue("job:j1", vec![Scope { prefix: prefix.to_owned(), verbs }], HOUR).await
    }

    async fn fill(&self, names: &[&str]) -> Result<()> {
        for name in names {
            put(self.all.as_ref(), &Path::from(*name), Bytes::copy_from_slice(name.as_bytes())).await?;
        }
        Ok(())
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// What the holder of a credential has in hand.
fn holder(c: &Credential) -> AmazonS3 {
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    AmazonS3Builder::new()
        .with_endpoint(c.endpoint.clone().unwrap())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(c.bucket.clone().unwrap())
        .with_access_key_id(&c.access_key)
        .with_secret_access_key(&c.secret_key)
        .with_token(&c.session_token)
        .with_retry(once)
        .build()
        .unwrap()
}

async fn list(store: &dyn ObjectStore, prefix: Option<&str>) -> Result<Vec<String>> {
    let prefix = prefix.map(Path::from);
    let found: Result<Vec<_>, _> = store.list(prefix.as_ref()).map_ok(|m| m.location.to_string()).try_collect().await;
    found.map_err(refused_list)
}

/// A plain client has no word of its own for a listing that is refused.
fn refused_list(e: object_store::Error) -> Error {
    let e = error("list", &Path::default(), e);
    if e.chain().contains("<Code>AccessDenied</Code>") { Error::denied("listing is refused").with_source(e) } else { e }
}

#[track_caller]
fn denied<T: std::fmt::Debug>(what: &str, answer: Result<T>) {
    match answer {
        Err(e) if e.kind() == ErrorKind::Denied => {}
        other => panic!("{what}: expected a denial, got {other:?}"),
    }
}

async fn reads_writes_lists_and_deletes_within_its_prefix(rig: &Rig, _: &Harness) -> Result<()> {
    rig.fill(&["a/b/one", "a/b/deep/two", "a/b"]).await?;
    let s3 = holder(&rig.issue("a/b", Verbs::ALL).await?);
    assert_eq!(get(&s3, &Path::from("a/b/deep/two")).await?, "a/b/deep/two");
    assert_eq!(get(&s3, &Path::from("a/b")).await?, "a/b");
    put(&s3, &Path::from("a/b/new"), "new").await?;
    delete(&s3, &Path::from("a/b/one")).await?;
    assert_eq!(list(&s3, Some("a/b")).await?, ["a/b/deep/two", "a/b/new"]);
    assert_eq!(get(rig.all.as_ref(), &Path::from("a/b/new")).await?, "new");
    Ok(())
}

async fn uploads_in_parts_within_its_prefix(rig: &Rig, _: &Harness) -> Result<()> {
    use object_store::ObjectStoreExt as _;
    let s3 = holder(&rig.issue("up", Verbs::WRITE).await?);
    let path = Path::from("up/large");
    let failed = |e| error("upload", &path, e);
    let mut upload = s3.put_multipart(&path).await.map_err(failed)?;
    upload.put_part(vec![1_u8; 5 << 20].into()).await.map_err(failed)?;
    upload.put_part(vec![2_u8; 10].into()).await.map_err(failed)?;
    upload.complete().await.map_err(failed)?;
    assert_eq!(get(rig.all.as_ref(), &path).await?.len(), (5 << 20) + 10);
    let mut aborted = s3.put_multipart(&path).await.map_err(failed)?;
    aborted.put_part(vec![3_u8; 10].into()).await.map_err(failed)?;
    aborted.abort().await.map_err(failed)?;
    let beside = s3.put_multipart(&Path::from("upper/large")).await.map(drop);
    denied("an upload beside the prefix", beside.map_err(failed));
    Ok(())
}

async fn reaches_nothing_outside_its_prefix(rig: &Rig, _: &Harness) -> Result<()> {
    let outside = ["a/bc", "a/bc/one", "a/c/one", "a", "b/a/b/one", "other/one", "a/b.txt"];
    rig.fill(&outside).await?;
    rig.fill(&["a/b/one"]).await?;
    let s3 = holder(&rig.issue("a/b", Verbs::ALL).await?);
    for name in outside {
        let path = Path::from(name);
        denied(&format!("get {name}"), get(&s3, &path).await);
        denied(&format!("put {name}"), put(&s3, &path, "evil").await);
        denied(
            &format!("copy {name}"),
            s3.copy_opts(&path, &Path::from("a/b/stolen"), Default::default()).await.map_err(|e| error("copy", &path, e)),
        );
        assert_eq!(get(rig.all.as_ref(), &path).await?, name);
    }
    assert!(delete(&s3, &Path::from("a/c/one")).await.is_err());
    assert_eq!(get(rig.all.as_ref(), &Path::from("a/c/one")).await?, "a/c/one");
    Ok(())
}

async fn lists_nothing_of_other_tenants(rig: &Rig, _: &Harness) -> Result<()> {
    rig.fill(&["t1/secret", "t1/x/one", "t10/secret", "t2/secret"]).await?;
    let s3 = holder(&rig.issue("t1", Verbs::READ).await?);
    assert_eq!(list(&s3, Some("t1")).await?, ["t1/secret", "t1/x/one"]);
    for prefix in [None, Some("t2"), Some("t10"), Some("t")] {
        denied(&format!("list {prefix:?}"), list(&s3, prefix).await);
    }
    let folders = s3.list_with_delimiter(None).await.map_err(refused_list);
    denied("the names of the tenants", folders);
    Ok(())
}

async fn does_only_what_its_verbs_say(rig: &Rig, _: &Harness) -> Result<()> {
    rig.fill(&["a/one"]).await?;
    let (one, new) = (Path::from("a/one"), Path::from("a/new"));
    let reader = holder(&rig.issue("a", Verbs::READ).await?);
    get(&reader, &one).await?;
    denied("a reader writes", put(&reader, &new, "x").await);
    assert!(delete(&reader, &one).await.is_err(), "a reader deletes");
    let writer = holder(&rig.issue("a", Verbs::WRITE).await?);
    put(&writer, &new, "x").await?;
    denied("a writer reads", get(&writer, &one).await);
    denied("a writer lists", list(&writer, Some("a")).await);
    assert!(delete(&writer, &one).await.is_err(), "a writer deletes");
    assert_eq!(get(rig.all.as_ref(), &one).await?, "a/one");
    Ok(())
}

async fn several_scopes_keep_their_verbs(rig: &Rig, _: &Harness) -> Result<()> {
    rig.fill(&["in/one", "out/one"]).await?;
    let scope = |prefix: &str, verbs| Scope { prefix: prefix.to_owned(), verbs };
    let c = rig.grants.issue("job:j1", vec![scope("in", Verbs::READ), scope("out", Verbs::WRITE)], HOUR).await?;
    let s3 = holder(&c);
    get(&s3, &Path::from("in/one")).await?;
    put(&s3, &Path::from("out/two"), "x").await?;
    denied("writing what is for reading", put(&s3, &Path::from("in/two"), "x").await);
    denied("reading what is for writing", get(&s3, &Path::from("out/one")).await);
    Ok(())
}

async fn anothers_token_or_secret_is_refused(rig: &Rig, _: &Harness) -> Result<()> {
    rig.fill(&["ada/one", "eve/one"]).await?;
    let (ada, eve) = (rig.issue("ada", Verbs::ALL).await?, rig.issue("eve", Verbs::ALL).await?);
    for (what, mixed) in [
        ("eve's key with ada's token", Credential { session_token: ada.session_token.clone(), ..eve.clone() }),
        ("ada's key with eve's token", Credential { session_token: eve.session_token.clone(), ..ada.clone() }),
        ("ada's key with eve's secret", Credential { secret_key: eve.secret_key.clone(), ..ada.clone() }),
        ("ada's key without a token", Credential { session_token: String::new(), ..ada.clone() }),
    ] {
        let s3 = holder(&mixed);
        for name in ["ada/one", "eve/one"] {
            assert!(get(&s3, &Path::from(name)).await.is_err(), "{what} reads {name}");
        }
    }
    get(&holder(&ada), &Path::from("ada/one")).await?;
    Ok(())
}

/// Two seconds, though STS makes none for less than 900: the policy itself ends.
async fn ends_when_it_was_to_end(rig: &Rig, h: &Harness) -> Result<()> {
    rig.fill(&["a/one"]).await?;
    let scope = Scope { prefix: "a".to_owned(), verbs: Verbs::ALL };
    let c = rig.grants.issue("ada", vec![scope], Duration::from_secs(3)).await?;
    assert!(c.expires_at <= h.env().now() + Duration::from_secs(3));
    let s3 = holder(&c);
    get(&s3, &Path::from("a/one")).await?;
    h.pass(Duration::from_secs(4)).await;
    denied("reading afterwards", get(&s3, &Path::from("a/one")).await);
    denied("writing afterwards", put(&s3, &Path::from("a/two"), "x").await);
    denied("listing afterwards", list(&s3, Some("a")).await);
    Ok(())
}

async fn says_where_it_is_good_and_until_when(rig: &Rig, h: &Harness) -> Result<()> {
    let c = rig.issue("a", Verbs::READ).await?;
    let ends_in = c.expires_at.since(h.env().now());
    assert!(ends_in > HOUR - Duration::from_secs(30) && ends_in <= HOUR + Duration::from_secs(5), "{ends_in:?}");
    assert!(c.endpoint.is_some() && c.bucket.as_deref().is_some_and(|b| b.starts_with("t-b")));
    assert!(c.access_key.starts_with("ASIA"), "{c:?}");
    assert_eq!(rig.grants.secret_of(&c.access_key), None);
    denied("checking it here", rig.grants.verify(&c.access_key, &c.session_token));
    for shown in [format!("{c:?}"), format!("{:?}", rig.grants)] {
        assert!(!shown.contains(&c.secret_key) && !shown.contains(&c.session_token), "a secret shows");
    }
    assert_eq!(rig.aws.check_grants().await[0].found, Found::Ready);
    Ok(())
}

async fn refuses_what_cannot_be_granted(rig: &Rig, h: &Harness) -> Result<()> {
    let scopes = |n: usize| (0..n).map(|i| Scope { prefix: format!("p/{i}"), verbs: Verbs::READ }).collect::<Vec<_>>();
    let long = vec![Scope { prefix: "x".repeat(900), verbs: Verbs::ALL }];
    let cases = [
        ("no scope", scopes(0), HOUR),
        ("nine scopes", scopes(9), HOUR),
        ("no time", scopes(1), Duration::ZERO),
        ("too long a time", scopes(1), HOUR + Duration::from_secs(1)),
        ("too long a prefix", long, HOUR),
    ];
    for (what, scopes, ttl) in cases {
        let e = rig.grants.issue("ada", scopes, ttl).await.expect_err(what);
        assert_eq!(e.kind(), ErrorKind::Invalid, "{what}: {e:?}");
    }
    rig.grants.issue("user:ada@example.com \u{1F30A}", scopes(8), Duration::from_secs(1)).await?;
    let none =
        AwsSettings { role_arn: None, ..settings(MINISTACK, h.env()).or_else(|_| settings(MOTO, h.env())).expect("an engine is here") };
    let e = connect(none, h.env()).await.grants().expect_err("there is no role");
    assert!(e.message().contains("role_arn"), "{e}");
    Ok(())
}

/// Makes a test of each behaviour; they are counted for the page about drivers as those of the suites are.
macro_rules! behaviours {
    ($variable:ident, $lies:expr, $($name:ident)*) => { $(
        #[test]
        fn $name() {
            run_real(async |h: &Harness| {
                h.begin("grants", module_path!(), stringify!($name));
                if let Some((_, lie)) = $lies.iter().find(|(behaviour, _)| *behaviour == stringify!($name)) {
                    return h.skipped(&Skip((*lie).to_owned()));
                }
                let rig = match Rig::new($variable, h.env()).await {
                    Ok(rig) => rig,
                    Err(why) => return h.skipped(&why),
                };
                if let Err(e) = super::$name(&rig, h).await {
                    panic!("a call failed that should not have: {e:?}");
                }
            });
        }
    )* };
}

macro_rules! all_behaviours {
    ($variable:ident, $lies:expr) => {
        behaviours! { $variable, $lies,
            reads_writes_lists_and_deletes_within_its_prefix uploads_in_parts_within_its_prefix reaches_nothing_outside_its_prefix
            lists_nothing_of_other_tenants does_only_what_its_verbs_say several_scopes_keep_their_verbs
            anothers_token_or_secret_is_refused ends_when_it_was_to_end says_where_it_is_good_and_until_when refuses_what_cannot_be_granted
        }
    };
}

mod ministack {
    use super::*;

    const LIES: [(&str, &str); 0] = [];

    all_behaviours!(MINISTACK, LIES);
}

mod moto {
    use super::*;

    const NO_POLICY: &str = "moto does not apply session policies, and checks no credential unless it answers presigned URLs with errors";
    const LIES: [(&str, &str); 7] = [
        ("uploads_in_parts_within_its_prefix", NO_POLICY),
        ("reaches_nothing_outside_its_prefix", NO_POLICY),
        ("lists_nothing_of_other_tenants", NO_POLICY),
        ("does_only_what_its_verbs_say", NO_POLICY),
        ("several_scopes_keep_their_verbs", NO_POLICY),
        ("anothers_token_or_secret_is_refused", NO_POLICY),
        ("ends_when_it_was_to_end", NO_POLICY),
    ];

    all_behaviours!(MOTO, LIES);
}
