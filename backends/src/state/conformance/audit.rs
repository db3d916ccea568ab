//! The audit trail.

use super::{
    Fixture,
    dice::Dice,
    samples::{account, entry, upload},
};
use crate::state::AuditQuery;
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    id::UploadId,
    time::Timestamp,
};

async fn write(store: &Fixture, audit: Vec<AuditEntry>) {
    let change =
        Change { subject: Subject::None, audit, outbox: Vec::new(), durability: Durability::Visible };
    store.one.apply(change).await.unwrap();
}

/// Byte for byte, in the order of storing, with rising positions.
pub async fn the_bytes_are_those_that_were_written(store: &Fixture) {
    let record = upload("acme", "/upload/\u{fc}.csv", 1);
    let entries: Vec<AuditEntry> = (0..30)
        .map(|n| {
            let mut entry = entry(&record);
            entry.detail.insert("n".to_owned(), format!("{n} \"\u{1f600}\"\n"));
            entry
        })
        .collect();
    write(store, entries.iter().take(10).cloned().collect()).await;
    write(store, entries.iter().skip(10).cloned().collect()).await;
    let mut seen = Vec::new();
    loop {
        let after = seen.last().map(|stored: &crate::state::StoredAudit| stored.position);
        let page = store.two.audit(AuditQuery { after, limit: 7, ..Default::default() }).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert!(seen.first().unwrap().position >= 1);
    assert!(seen.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(seen.len(), entries.len());
    for (stored, entry) in seen.iter().zip(&entries) {
        assert_eq!(stored.canonical, entry.canonical().unwrap());
        assert_eq!(&stored.entry().unwrap(), entry);
    }
}

/// 600 entries whose clock now and then went back, 1,000 queries.
pub async fn every_condition_agrees_with_the_model(store: &Fixture) {
    let mut dice = Dice::new(7);
    let uploads: Vec<UploadId> = (0..6).map(|_| UploadId::new()).collect();
    let names = ["acme", "other", "third"];
    let actions = [Action::UploadOpen, Action::UploadAccept, Action::RequestRefuse];
    let results = [AuditResult::Ok, AuditResult::Refused, AuditResult::Failed];
    let paths = ["/upload/a", "/upload/b"].map(str::to_owned);
    let references = ["7F3K2Q", "AAAAAA"].map(str::to_owned);
    let mut all = Vec::new();
    for n in 0..600 {
        let id = dice.pick(&names).to_owned();
        let actor = match dice.below(3) {
            0 => Actor::Operator { id },
            1 => Actor::System { id },
            _ => Actor::Account { id, credential: None },
        };
        let mut entry = AuditEntry::new(dice.pick(&actions), actor, dice.pick(&results));
        let back = if dice.once_in(10) { i64::try_from(dice.below(200)).unwrap() } else { 0 };
        entry.at = Timestamp::from_millis(1_000 + n - back);
        entry.account = dice.maybe(2, &names).map(account);
        entry.upload = dice.maybe(2, &uploads);
        entry.subject = dice.maybe(2, &paths);
        entry.reference = dice.maybe(4, &references);
        all.push(entry);
    }
    for some in all.chunks(50) {
        write(store, some.to_vec()).await;
    }
    let whole = store.two.audit(AuditQuery { limit: 1_000, ..Default::default() }).await.unwrap();
    let positions: Vec<u64> = whole.iter().map(|stored| stored.position).collect();
    for n in 0..1_000 {
        let query = AuditQuery {
            account: dice.maybe(3, &names).map(account),
            actor: dice.maybe(4, &names).map(str::to_owned),
            upload: dice.maybe(4, &uploads),
            path: dice.maybe(4, &paths),
            result: dice.maybe(4, &["ok", "refused", "failed", "nonsense"]).map(str::to_owned),
            action: dice.maybe(4, &["upload.open", "request.refuse", "nonsense"]).map(str::to_owned),
            reference: dice.maybe(6, &references),
            since: dice
                .once_in(4)
                .then(|| Timestamp::from_millis(1_000 + i64::try_from(dice.below(600)).unwrap())),
            after: dice.maybe(4, &positions),
            newest_first: dice.once_in(2),
            limit: dice.pick(&[0, 1, 5, 1_000]),
        };
        let mut expected: Vec<u64> = all
            .iter()
            .zip(&positions)
            .filter(|(entry, position)| matches(&query, entry, **position))
            .map(|(_, position)| *position)
            .collect();
        if query.newest_first {
            expected.reverse();
        }
        expected.truncate(query.limit);
        let found = store.two.audit(query.clone()).await.unwrap();
        let found: Vec<u64> = found.iter().map(|stored| stored.position).collect();
        assert_eq!(found, expected, "query {n}: {query:#?}");
    }
}

fn matches(query: &AuditQuery, entry: &AuditEntry, position: u64) -> bool {
    let (Actor::Account { id, .. } | Actor::Operator { id } | Actor::System { id }) = &entry.actor;
    let result = match entry.result {
        AuditResult::Ok => "ok",
        AuditResult::Refused => "refused",
        AuditResult::Failed => "failed",
    };
    query.account.as_ref().is_none_or(|account| entry.account.as_ref() == Some(account))
        && query.actor.as_ref().is_none_or(|actor| id == actor)
        && query.upload.is_none_or(|upload| entry.upload == Some(upload))
        && query.path.as_ref().is_none_or(|path| entry.subject.as_ref() == Some(path))
        && query.result.as_ref().is_none_or(|wanted| wanted == result)
        && query.action.as_ref().is_none_or(|action| entry.action.name() == *action)
        && query.reference.as_ref().is_none_or(|reference| entry.reference.as_ref() == Some(reference))
        && query.since.is_none_or(|since| entry.at >= since)
        && query.after.is_none_or(|after| position > after)
}
