//! EC2 Auto Scaling: the suite on moto, and what moto does not do on a script.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::{BehaviorVersion, Credentials, Region};
use tidemill_aws::fleet::Drainer;
use tidemill_aws::{Aws, AwsSettings};
use tidemill_base::{Env, ErrorKind, Result};
use tidemill_blocks::check::Found;
use tidemill_blocks::fleet::{Fleet, GroupSpec, MemberState, Offers};
use tidemill_blocks_test::{Harness, Skip};

use crate::scripted::Scripted;
use crate::support::{MOTO, connect, or_skip, settings};

/// The names that the suite uses.
const GROUPS: [&str; 4] = ["g", "a", "b", "a-1"];

/// Makes empty groups, as an owner does by a template.
async fn make_groups(settings: &AwsSettings, groups: &[String]) {
    let config = aws_sdk_autoscaling::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(settings.endpoint.clone().unwrap())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .http_client(
            aws_smithy_http_client::Builder::new()
                .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring))
                .build_https(),
        )
        .build();
    let client = Client::from_conf(config);
    let template = format!("{}-machines", settings.prefix);
    let call = client.create_launch_configuration().launch_configuration_name(&template).image_id("ami-12c6146b");
    call.instance_type("t3.micro").send().await.unwrap();
    for group in groups {
        let call = client.create_auto_scaling_group().auto_scaling_group_name(format!("{}-{group}", settings.prefix));
        let call = call.launch_configuration_name(&template).min_size(0).max_size(0).desired_capacity(0);
        call.availability_zones("us-east-1a").send().await.unwrap();
    }
}

pub(crate) async fn on_moto(env: &Env, groups: &[String]) -> Result<Aws, Skip> {
    let settings = settings(MOTO, env)?;
    make_groups(&settings, groups).await;
    Ok(connect(settings, env).await)
}

mod moto {
    use super::*;

    async fn make(h: &Harness) -> Result<Arc<dyn Fleet>, Skip> {
        if h.behaviour() == "the_youngest_go_first" {
            return Err(Skip("moto ends the oldest instance whatever the termination policy says".to_owned()));
        }
        let mut groups: Vec<String> = GROUPS.map(str::to_owned).to_vec();
        groups.push("x".repeat(40));
        let aws = on_moto(h.env(), &groups).await?;
        Ok(Arc::new(aws.fleet(None).looking_every(Duration::ZERO)))
    }

    tidemill_blocks_test::fleet_suite!(real, make);
}

fn spec(name: &str, min: u32, max: u32) -> GroupSpec {
    GroupSpec { name: name.to_owned(), min, max, offers: Offers { slots: 1, memory: 1 << 20, named: BTreeMap::new() } }
}

#[tokio::test]
async fn a_group_that_nobody_made_is_named_with_how_to_make_it() {
    let env = Env::system();
    let aws = or_skip!("a_group_that_nobody_made_is_named_with_how_to_make_it", on_moto(&env, &["g".to_owned()]).await);
    let e = aws.fleet(None).ensure(spec("absent", 0, 1)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.message().contains("-absent") && e.message().contains("tidemill worker --class absent"), "{e}");
    let found = aws.check_fleet(&["g".to_owned(), "absent".to_owned()]).await;
    assert_eq!(found.iter().map(|f| f.found).collect::<Vec<_>>(), [Found::Ready, Found::Missing], "{found:?}");
}

#[tokio::test]
async fn a_picture_of_the_groups_is_kept_for_a_while_and_thrown_away_by_a_change() {
    let env = Env::system();
    let aws = or_skip!("a_picture_of_the_groups_is_kept_for_a_while", on_moto(&env, &["g".to_owned()]).await);
    let fleet = aws.fleet(None).looking_every(Duration::from_secs(600));
    fleet.ensure(spec("g", 1, 4)).await.unwrap();
    let looks = || aws.calls().attempts("autoscaling", "DescribeAutoScalingGroups");
    assert_eq!(fleet.groups().await.unwrap()[0].members.len(), 1);
    let before = looks();
    for _ in 0..10 {
        fleet.reconcile().await.unwrap();
        fleet.groups().await.unwrap();
    }
    assert_eq!(looks(), before, "nothing was asked again");
    fleet.set_desired("g", 3).await.unwrap();
    assert_eq!(fleet.groups().await.unwrap()[0].members.len(), 3);
}

/// Is done with a member after it was asked this often.
#[derive(Debug, Default)]
struct After {
    asked: Mutex<Vec<String>>,
    done_after: usize,
}

#[async_trait]
impl Drainer for After {
    async fn ask(&self, member: &str) -> Result<()> {
        self.asked.lock().unwrap().push(member.to_owned());
        Ok(())
    }

    async fn is_done(&self, _: &str) -> Result<bool> {
        Ok(self.asked.lock().unwrap().len() >= self.done_after)
    }
}

fn asg(name: &str, instances: &[(&str, &str)]) -> String {
    let members: String = instances
        .iter()
        .map(|(id, lifecycle)| {
            format!(
                "<member><InstanceId>{id}</InstanceId><AvailabilityZone>a</AvailabilityZone><LifecycleState>{lifecycle}</LifecycleState>\
                 <HealthStatus>Healthy</HealthStatus><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>"
            )
        })
        .collect();
    format!(
        "<AutoScalingGroups><member><AutoScalingGroupName>{name}</AutoScalingGroupName><MinSize>0</MinSize><MaxSize>4</MaxSize>\
         <DesiredCapacity>1</DesiredCapacity><DefaultCooldown>300</DefaultCooldown><AvailabilityZones><member>a</member></AvailabilityZones>\
         <HealthCheckType>EC2</HealthCheckType><CreatedTime>2026-11-21T00:00:00Z</CreatedTime><Instances>{members}</Instances></member>\
         </AutoScalingGroups>"
    )
}

async fn scripted(server: &Scripted, env: &Env) -> Aws {
    let settings = AwsSettings {
        region: Some("us-east-1".to_owned()),
        endpoint: Some(server.endpoint.clone()),
        access_key: Some("test".to_owned()),
        secret_key: Some("test".to_owned()),
        ..AwsSettings::default()
    };
    connect(settings, env).await
}

#[tokio::test]
async fn a_member_that_is_to_go_is_asked_until_it_has_finished_and_then_let_go() {
    let env = Env::system();
    let server = Scripted::start(|form| match form.starts_with("Action=DescribeAutoScalingGroups&") {
        true => (200, asg("tidemill-g", &[("i-1", "InService"), ("i-2", "Terminating:Wait")])),
        false => (200, String::new()),
    })
    .await;
    let drainer = Arc::new(After { done_after: 3, ..After::default() });
    let fleet = scripted(&server, &env).await.fleet(Some(drainer.clone())).looking_every(Duration::ZERO);
    fleet.ensure(spec("g", 0, 4)).await.unwrap();
    let hook = server.last("PutLifecycleHook");
    assert!(hook.contains("EC2_INSTANCE_TERMINATING") && hook.contains("HeartbeatTimeout=1800"), "{hook}");
    let members = fleet.groups().await.unwrap().remove(0).members;
    assert_eq!(members.iter().map(|m| m.state).collect::<Vec<_>>(), [MemberState::Running, MemberState::Draining]);
    for _ in 0..2 {
        fleet.reconcile().await.unwrap();
        assert_eq!(server.count("CompleteLifecycleAction"), 0, "it still works");
    }
    fleet.reconcile().await.unwrap();
    assert_eq!(*drainer.asked.lock().unwrap(), ["i-2"; 3]);
    let released = server.last("CompleteLifecycleAction");
    assert!(released.contains("InstanceId=i-2") && released.contains("CONTINUE"), "{released}");
}

#[tokio::test]
async fn a_sick_member_is_let_go_without_being_asked() {
    let env = Env::system();
    let waits = Arc::new(AtomicUsize::new(0));
    let state = Arc::clone(&waits);
    let server = Scripted::start(move |form| match form.split('&').next() {
        Some("Action=DescribeAutoScalingGroups") => {
            let lifecycle = if state.load(Ordering::SeqCst) > 0 { "Terminating:Wait" } else { "InService" };
            (200, asg("tidemill-g", &[("i-1", lifecycle)]))
        }
        Some("Action=TerminateInstanceInAutoScalingGroup") => {
            state.fetch_add(1, Ordering::SeqCst);
            (200, String::new())
        }
        _ => (200, String::new()),
    })
    .await;
    let drainer = Arc::new(After { done_after: 100, ..After::default() });
    let fleet = scripted(&server, &env).await.fleet(Some(drainer.clone())).looking_every(Duration::ZERO);
    fleet.ensure(spec("g", 0, 4)).await.unwrap();
    fleet.mark_unhealthy("g", "i-1").await.unwrap();
    assert!(server.last("TerminateInstanceInAutoScalingGroup").contains("ShouldDecrementDesiredCapacity=false"));
    assert_eq!(fleet.groups().await.unwrap()[0].members[0].state, MemberState::Unhealthy);
    fleet.reconcile().await.unwrap();
    assert_eq!((server.count("CompleteLifecycleAction"), drainer.asked.lock().unwrap().len()), (1, 0));
}

#[tokio::test]
async fn throttling_is_waited_out_and_a_failed_start_is_told() {
    let env = Env::system();
    let mut refusals = 2;
    let server = Scripted::start(move |form| match form.split('&').next() {
        Some("Action=DescribeAutoScalingGroups") if refusals > 0 => {
            refusals -= 1;
            (400, "<Code>Throttling</Code><Message>Rate exceeded</Message>".to_owned())
        }
        Some("Action=DescribeAutoScalingGroups") => (200, asg("tidemill-g", &[("i-1", "InService")])),
        Some("Action=DescribeScalingActivities") => (
            200,
            "<Activities><member><ActivityId>a</ActivityId><AutoScalingGroupName>tidemill-g</AutoScalingGroupName><Cause>c</Cause>\
             <StartTime>2026-11-21T00:00:00Z</StartTime><StatusCode>Failed</StatusCode>\
             <StatusMessage>We currently do not have sufficient t3.micro capacity</StatusMessage></member></Activities>"
                .to_owned(),
        ),
        _ => (200, String::new()),
    })
    .await;
    let aws = scripted(&server, &env).await;
    let fleet = aws.fleet(None);
    fleet.ensure(spec("g", 0, 4)).await.unwrap();
    let counts = aws.calls().counts()[&("autoscaling", "DescribeAutoScalingGroups".to_owned())];
    assert_eq!((counts.attempts, counts.throttled), (3, 2));
    assert_eq!(server.count("PutLifecycleHook"), 0, "nobody would let members go");
    let trouble = fleet.trouble("g").await.unwrap().unwrap();
    assert!(trouble.contains("sufficient t3.micro capacity"), "{trouble}");
}
