//! Jobs of several stages: a large table is cut on record boundaries, worked on part by part, grouped, gathered.

use std::collections::BTreeMap;

use tidemill_it::{Options, Server};

const HEADER: &str = "amount,region,note\n";
const REGIONS: [&str; 5] = ["north", "south", "east", "west", "sea"];

/// A table whose last field may hold commas, quotes and line ends.
fn table(rows: u64) -> (String, BTreeMap<&'static str, u64>) {
    let mut text = HEADER.to_owned();
    let mut totals = BTreeMap::new();
    for n in 0..rows {
        let (amount, region) = (n * 7919 % 10_007, REGIONS[(n * 3 % 5) as usize]);
        let note = match n % 4 {
            0 => "plain".to_owned(),
            1 => format!("\"line one\nline two, of {n}\""),
            2 => format!("\"she said \"\"{n}\"\"\n\n\""),
            _ => "\"comma, comma\"".to_owned(),
        };
        text.push_str(&format!("{amount},{region},{note}\n"));
        *totals.entry(region).or_default() += amount;
    }
    (text, totals)
}

const JOB: &str = r#"
name = "claims"
[[stage]]
name = "cut"
parts = { objects = ["claims/in/*.csv"], size = "16KiB", boundary = "csv", header = true }
command = ["cp", "{in}", "{out}"]
output = "part-{task}.csv"

[[stage]]
name = "sum"
from = "cut"
command = ["sh", "-c", '''mkdir -p "$2" && awk -F, -v out="$2" '/^[0-9]+,[a-z]+,/ { sum[$2] += $1 } END { for (r in sum) print sum[r] > (out "/" r ".txt") }' "$1"''', "sh", "{in}", "{out}"]
output = { folder = true }

[[stage]]
name = "region"
from = "sum"
mode = "group"
key = "^([a-z]+)\\.txt$"
command = "cat $(cat \"$inputs\") | awk -v key=\"$key\" '{ s += $1 } END { print key, s }' > \"$out\""
shell = true
output = "{key}.total"

[[stage]]
name = "all"
from = "region"
mode = "gather"
command = ["sh", "-c", 'out=$1; shift; cat "$@" > "$out"', "sh", "{out}", "{in}"]
output = "totals.txt"
"#;

#[test]
fn parts_on_record_boundaries_stream_group_and_gather_to_the_totals_of_the_model() {
    let server = Server::start(Options::default());
    let (first, first_totals) = table(4_000);
    let (second, second_totals) = table(1_500);
    server.http().put("/api/v1/objects/claims/in/a.csv", first.clone()).is(201);
    server.http().put("/api/v1/objects/claims/in/b%20second.csv", second.clone()).is(201);
    let id = server.submit(JOB);
    let job = server.ended(&id);
    assert_eq!(job["state"], "succeeded", "{job}");

    // Every part is a whole table: the header, then whole records; together they are the input.
    let http = server.http();
    let list = http.get(&format!("/api/v1/batch/jobs/{id}/results?stage=cut")).is(200).json();
    let parts: Vec<String> = list["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| http.get(&format!("/api/v1{}", f["href"].as_str().unwrap())).is(200).text())
        .collect();
    assert!(parts.len() > 8, "{} parts", parts.len());
    for part in &parts {
        assert!(part.starts_with(HEADER) && part.ends_with('\n'), "{:?}", &part[..40]);
        assert_eq!(part.matches('"').count() % 2, 0, "a quoted field was cut");
        assert_eq!(part.matches(HEADER).count(), 1, "one header a part");
        assert!(part.len() < 20 << 10, "a part of {} bytes", part.len());
    }
    let joined: String = parts.iter().map(|p| &p[HEADER.len()..]).collect();
    assert!(joined == format!("{}{}", &first[HEADER.len()..], &second[HEADER.len()..]), "the parts are not the input");

    let mut want = first_totals;
    second_totals.into_iter().for_each(|(region, sum)| *want.entry(region).or_default() += sum);
    let lines: String = want.iter().map(|(region, sum)| format!("{region} {sum}\n")).collect();
    assert_eq!(String::from_utf8(server.results(&id)["totals.txt"].clone()).unwrap(), lines);

    let stages: Vec<(&str, u64, u64)> = job["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["name"].as_str().unwrap(), s["tasks"]["total"].as_u64().unwrap(), s["tasks"]["succeeded"].as_u64().unwrap()))
        .collect();
    let n = parts.len() as u64;
    assert_eq!(stages, [("cut", n, n), ("sum", n, n), ("region", 5, 5), ("all", 1, 1)]);
    assert_eq!(job["tasks"]["total"], 2 * n + 6);
    assert_eq!(job["stages"][0]["bytes_in"].as_u64().unwrap(), (joined.len() + parts.len() * HEADER.len()) as u64);
}

#[test]
fn a_streaming_stage_starts_before_the_stage_it_follows_is_done() {
    let server = Server::start(Options { workers: "1..1", slots: 2, ..Options::default() });
    let gate = server.folder().join("gate");
    // The last task of the first stage waits until the second stage has worked on the others.
    let job = format!(
        "name = \"stream\"\n[[stage]]\nname = \"a\"\narray = \"0-3\"\ncommand = '''echo $index > \"$out\"; if [ $index = 3 ]; then until [ -e '{0}' ]; do sleep 0.1; done; fi'''\nshell = true\n\
         [[stage]]\nname = \"b\"\nfrom = \"a\"\ncommand = '''cat \"$in\" > \"$out\"; echo done >> '{0}.log'; [ $(wc -l < '{0}.log') -lt 3 ] || touch '{0}' '''\nshell = true\noutput = \"{{task}}\"\n",
        gate.display()
    );
    let id = server.submit(&job);
    let ended = server.ended(&id);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let want: BTreeMap<String, Vec<u8>> = (0..4).map(|n| (n.to_string(), format!("{n}\n").into_bytes())).collect();
    assert_eq!(server.results(&id), want);
}
