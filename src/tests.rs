//! Tests that run inside PostgreSQL: what the building blocks of the edge promise to those that
//! build on them. Each is rolled back; what must be seen committed is tested from without.

#[pgrx::pg_schema]
#[allow(clippy::module_inception, reason = "pgrx runs the tests in the schema of this name")]
mod tests {
    use crate::decide::refusal::Refusal;
    use crate::server::encoding;
    use crate::server::extension::Extension;
    use crate::server::failure::Failure;
    use crate::server::policies;
    use crate::server::sandbox::{self, Restriction};
    use crate::server::sql::{self, Arg};
    use crate::server::transaction::in_subtransaction;
    use pgrx::prelude::*;
    use std::time::Duration;

    fn done(sql: &str) {
        sql::execute(sql, &[]).expect("the statement goes through");
    }

    fn text(sql: &str) -> String {
        let found = sql::query(sql, &[], |row| sql::required(row.text(1), "value"));
        found.expect("the query goes through").remove(0)
    }

    fn role(name: &str) -> pg_sys::Oid {
        done(&format!("CREATE ROLE {name}"));
        let oid = format!("SELECT oid FROM pg_roles WHERE rolname = '{name}'");
        let found = sql::query(&oid, &[], |row| sql::required(row.oid(1), "role"));
        found.expect("the role is there").remove(0)
    }

    /// How `work` failed, its doing undone.
    fn failure<T>(work: impl FnOnce() -> Result<T, Failure>) -> Failure {
        in_subtransaction(work).err().expect("it fails")
    }

    #[pg_test]
    fn every_kind_of_parameter_arrives_as_it_was_given() {
        let tid = |block: u16, ip_posid| pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: 1, bi_lo: block },
            ip_posid,
        };
        let tids = [tid(2, 3), tid(4, 5)];
        let args = [
            Arg::Text("it's \u{1f98a}"),
            Arg::Int8(i64::MIN),
            Arg::Oid(pg_sys::Oid::from(u32::MAX)),
            Arg::Time(-1),
            Arg::Tid(tids[0]),
            Arg::Tids(&tids),
        ];
        let statement = "SELECT $1, $2, $3, $4, $5, $6[2], cardinality($6), NULL::text, \
                         $4 = '2000-01-01 UTC'::timestamptz - interval '1 microsecond'";
        let seen = sql::query(statement, &args, |row| {
            assert_eq!(row.text(1).as_deref(), Some("it's \u{1f98a}"));
            assert_eq!(row.int8(2), Some(i64::MIN));
            assert_eq!(row.oid(3), Some(pg_sys::Oid::from(u32::MAX)));
            assert_eq!(row.int8(4), Some(-1));
            assert_eq!(row.text(5).as_deref(), Some("(65538,3)"));
            assert_eq!(row.tid(6).map(|tid| (tid.ip_blkid.bi_lo, tid.ip_posid)), Some((4, 5)));
            assert_eq!(row.text(7).as_deref(), Some("2"));
            assert_eq!((row.text(8), row.int8(8), row.tid(8).is_none()), (None, None, true));
            assert_eq!(row.bool(9), Some(true));
            Ok(())
        });
        assert_eq!(seen.expect("the query goes through").len(), 1);
    }

    #[pg_test]
    fn looking_takes_no_transaction_id() {
        // SAFETY: reads a variable of this process.
        let id = || unsafe { pg_sys::GetTopTransactionIdIfAny() };
        assert_eq!(id(), pg_sys::InvalidTransactionId);
        let extension = Extension::expect().expect("the extension is there");
        policies::load(&extension).expect("its policies are read");
        assert_eq!(id(), pg_sys::InvalidTransactionId);
    }

    #[pg_test]
    fn a_subtransaction_undoes_what_fails_and_keeps_what_does_not() {
        done("CREATE TEMP TABLE scratch (n int)");
        let raised = failure(|| {
            sql::execute("INSERT INTO scratch VALUES (1)", &[])?;
            sql::execute("SELECT 1 / 0", &[])
        });
        assert_eq!(raised.sqlstate(), "22012");
        let returned = failure(|| {
            sql::execute("INSERT INTO scratch VALUES (2)", &[])?;
            Err::<(), _>(Failure::internal("told, not raised"))
        });
        assert_eq!(returned.message, "told, not raised");
        let panicked = failure(|| -> Result<(), Failure> {
            sql::execute("INSERT INTO scratch VALUES (3)", &[])?;
            panic!("a bug")
        });
        assert!(panicked.message.contains("a bug"), "{}", panicked.message);
        assert_eq!(text("SELECT count(*)::text FROM scratch"), "0");
        in_subtransaction(|| sql::execute("INSERT INTO scratch VALUES (4)", &[]))
            .expect("it holds");
        assert_eq!(text("SELECT sum(n)::text FROM scratch"), "4");
    }

    #[pg_test]
    fn the_sandbox_is_the_owner_with_a_path_of_ours_and_nothing_of_it_stays() {
        let owner = role("owner");
        let me = sandbox::current_user();
        let path = text("SHOW search_path");
        sandbox::as_owner(owner, Restriction::Full, || {
            assert_eq!(sandbox::current_user(), owner);
            assert_eq!(text("SHOW search_path"), "pg_catalog, pg_temp");
            done("SET work_mem = '77kB'");
            Ok(())
        })
        .expect("it goes through");
        assert_eq!((sandbox::current_user(), text("SHOW search_path")), (me, path.clone()));
        assert_ne!(text("SHOW work_mem"), "77kB");

        // Whether the error is returned, with the sandbox's own way out, or raised.
        let returned =
            sandbox::as_owner(owner, Restriction::Full, || Err::<(), _>(Failure::internal("no")));
        assert!(returned.is_err());
        assert_eq!((sandbox::current_user(), text("SHOW search_path")), (me, path.clone()));
        failure(|| {
            sandbox::as_owner(owner, Restriction::Full, || sql::execute("SELECT 1 / 0", &[]))
        });
        assert_eq!((sandbox::current_user(), text("SHOW search_path")), (me, path));
    }

    #[pg_test]
    fn nobody_leaves_the_sandbox_by_himself() {
        let owner = role("owner");
        for deed in [
            "RESET ROLE",
            "SET SESSION AUTHORIZATION DEFAULT",
            "CREATE TEMP TABLE trap ()",
            "ALTER ROLE owner SUPERUSER",
        ] {
            let refused =
                failure(|| sandbox::as_owner(owner, Restriction::Full, || sql::execute(deed, &[])));
            assert_eq!(refused.sqlstate(), "42501", "{deed}: {}", refused.message);
        }
    }

    #[pg_test]
    fn a_sandbox_within_a_sandbox_is_no_wider() {
        let (owner, other) = (role("owner"), role("other"));
        let refused = failure(|| {
            sandbox::as_owner(owner, Restriction::Full, || {
                sandbox::as_owner(other, Restriction::PathOnly, || sql::execute("RESET ROLE", &[]))
            })
        });
        assert_eq!(refused.sqlstate(), "42501");
    }

    #[pg_test]
    fn a_lock_timeout_is_bounded_for_the_work_and_no_longer() {
        let before = text("SHOW lock_timeout");
        sandbox::with_lock_timeout(Duration::from_millis(1234), || {
            assert_eq!(text("SHOW lock_timeout"), "1234ms");
            Ok(())
        })
        .expect("it goes through");
        assert_eq!(text("SHOW lock_timeout"), before);
    }

    #[pg_test]
    fn an_error_keeps_its_sqlstate_whoever_made_it_up() {
        for sqlstate in ["40P01", "57014", "P0001", "ZZ123"] {
            let raise = format!(
                "DO $$ BEGIN RAISE 'm' USING ERRCODE = '{sqlstate}', DETAIL = 'd', HINT = 'h'; END $$"
            );
            let caught = failure(|| sql::execute(&raise, &[]));
            assert_eq!(caught.sqlstate(), sqlstate);
            assert_eq!((&*caught.message, caught.detail.as_deref()), ("m", Some("d")));
            assert_eq!(caught.hint.as_deref(), Some("h"));
            // And on its way out again.
            let raised = failure(|| -> Result<(), Failure> { caught.raise() });
            assert_eq!(raised.sqlstate(), sqlstate);
        }
    }

    #[pg_test]
    fn a_refusal_is_raised_with_its_own_sqlstate() {
        for refusal in [
            Refusal::InRecovery,
            Refusal::NoExtension,
            Refusal::NotOwner { relation: "t".into() },
            Refusal::NoRelation { oid: 1 },
            Refusal::BuiltIn { relation: "t".into() },
            Refusal::NegativeMaxRows { max_rows: -1 },
        ] {
            let sqlstate = refusal.sqlstate();
            assert_eq!(Failure::from(refusal).sqlstate(), sqlstate);
        }
    }

    #[pg_test]
    fn a_name_is_quoted_where_it_must_be() {
        let quoted = sql::quote_identifier;
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("we\"ird; DROP"), "\"we\"\"ird; DROP\"");
        assert_eq!(quoted("select"), "\"select\"");
    }

    #[pg_test]
    fn text_goes_there_and_back_whatever_its_bytes() {
        for bytes in [c"plain", c"\xc3\xa9", c"\xff\xfe and \xc3", c"\xf4\x8f\xbe\x80"] {
            assert_eq!(&*encoding::encode(&encoding::decode(bytes)), bytes);
        }
        // Cut off at the NUL, a statement would mean something else.
        assert_eq!(&*encoding::encode("a\0b"), c"a\xef\xbf\xbdb");
        assert_eq!(encoding::reportable("\u{10ffff}\u{e9}"), "\\xff\\u00e9");
    }

    #[pg_test(error = "must be owner of table public.theirs")]
    fn an_error_reaches_the_caller_in_the_words_of_the_refusal() {
        Failure::from(Refusal::NotOwner { relation: "public.theirs".into() }).raise()
    }
}
