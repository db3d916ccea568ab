//! `/inbox`: what an operator registers is seen by a real client, and by that account only.

use anyhow::{Result, ensure};
use dropgate_integration_tests::harness::{Gate, Setup, openssh::OpenSsh, payload};

#[tokio::test]
async fn registered_entries_are_listed_until_they_are_removed_and_everything_is_on_record() -> Result<()> {
    let gate = Gate::start(Setup::default().accounts(&["acme", "other"])).await?;
    let digest = payload::sha256(b"the report");
    let add =
        ["inbox", "add", "--account", "acme", "--path", "report.csv", "--size", "10", "--sha256", &digest];
    let said = gate.cli.run(&add).await?;
    ensure!(said.contains("/inbox/report.csv registered for acme with 10 bytes"), "{said}");
    // The same again changes nothing; something else under the same name is refused.
    let again = gate.cli.run(&add).await?;
    ensure!(again.contains("already"), "{again}");
    let other = ["inbox", "add", "--account", "acme", "--path", "/inbox/report.csv", "--size", "11"];
    let refused = gate.cli.try_run(&other, b"").await?;
    ensure!(refused.code() == 1 && refused.stderr.contains("remove it first"), "{}", refused.all());
    let nobody = ["inbox", "add", "--account", "nobody", "--path", "x", "--size", "1"];
    ensure!(gate.cli.try_run(&nobody, b"").await?.code() == 1);
    let deeper = ["inbox", "add", "--account", "acme", "--path", "a/b", "--size", "1"];
    ensure!(gate.cli.try_run(&deeper, b"").await?.code() == 2);

    let client = OpenSsh::new(&gate, "acme")?;
    let listed = client.sftp("ls -l /inbox\n").await?;
    let line = listed.stdout.lines().find(|l| l.contains("report.csv")).unwrap_or_default();
    ensure!(
        line.starts_with("-r--r--r--") && line.contains("inbox") && line.contains(" 10 "),
        "{}",
        listed.stdout
    );
    for refused in ["get /inbox/report.csv /dev/null\n", "rm /inbox/report.csv\n", "put /dev/null /inbox/x\n"]
    {
        ensure!(!client.try_sftp(refused).await?.status.success(), "{refused}");
    }
    let theirs = OpenSsh::new(&gate, "other")?.sftp("ls -l /inbox\n").await?;
    ensure!(!theirs.stdout.contains("report.csv"), "{}", theirs.stdout);

    let told = gate.cli.json(&["inbox", "list", "--account", "acme"]).await?;
    ensure!(told[0]["path"] == "/inbox/report.csv" && told[0]["sha256"] == digest.as_str(), "{told}");
    gate.cli.run(&["inbox", "remove", "--account", "acme", "--path", "report.csv"]).await?;
    ensure!(!client.sftp("ls -l /inbox\n").await?.stdout.contains("report.csv"));
    let gone = ["inbox", "remove", "--account", "acme", "--path", "report.csv"];
    ensure!(gate.cli.try_run(&gone, b"").await?.code() == 1);

    let trail = gate.audit(&["--path", "/inbox/report.csv", "--result", "ok"]).await?;
    let acts: Vec<_> = trail.iter().filter_map(|e| e["action"].as_str()).collect();
    ensure!(acts == ["inbox.add", "inbox.remove"], "{acts:?}");
    ensure!(trail.iter().all(|e| e["actor"]["kind"] == "operator" && e["account"] == "acme"), "{trail:?}");
    gate.finish().await
}
