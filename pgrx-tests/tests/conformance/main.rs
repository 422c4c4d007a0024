//! What every kind of local database must do, tested on each alike: the contract of a source, method by method, on tables
//! of every shape; then the whole way through the client's command.
//!
//! A kind takes part by implementing [`kind::LocalKind`] in a file of its own, and a line at the end of this one.
//! `PLIMSOLL_LARGE=1` adds what takes long: a database of 1,000 tables, values of 100 MB, and the client's memory.

mod along;
mod contract;
mod drift;
mod kind;
mod large;
mod mapped;
mod mariadb;
mod meanwhile;
mod model;
mod postgres;
mod pulled;
mod shapes;
mod shared_keys;
mod snapshot;
mod sqlite;
mod unique;
mod whole_way;
mod written;

/// The suite for one kind.
macro_rules! conformance {
    ($name:ident, $kind:ty) => {
        mod $name {
            use super::*;

            #[test]
            fn every_shape_of_table_is_read_by_the_contract() {
                shapes::every_shape_is_read_by_the_contract::<$kind>();
            }

            #[test]
            fn empty_tables_are_tables() {
                shapes::empty_tables_are_tables::<$kind>();
            }

            #[test]
            fn rows_that_no_column_takes_are_told_of_and_found_again() {
                shapes::rows_that_no_column_takes_are_told_of::<$kind>();
            }

            #[test]
            fn equal_rows_are_counted_and_look_alikes_kept_apart() {
                shapes::equal_rows_are_counted_and_look_alikes_kept_apart::<$kind>();
            }

            #[test]
            fn a_thousand_columns_are_read() {
                shapes::a_thousand_columns_are_read::<$kind>();
            }

            #[test]
            fn rows_that_stay_are_read_once_whatever_happens_to_others() {
                meanwhile::rows_that_stay_are_read_once::<$kind>();
            }

            #[test]
            fn the_token_changes_where_one_is_had() {
                meanwhile::the_token_changes_where_one_is_had::<$kind>();
            }

            #[test]
            fn whatever_happens_on_either_side_is_made_level() {
                whole_way::whatever_happens_is_made_level::<$kind>();
            }

            #[test]
            fn what_the_server_has_is_pulled() {
                pulled::what_the_server_has_is_pulled::<$kind>();
            }

            #[test]
            fn a_snapshot_is_seen_as_a_whole() {
                snapshot::a_snapshot_is_seen_as_a_whole::<$kind>();
            }

            #[test]
            fn a_snapshot_of_the_server_is_seen_as_a_whole() {
                snapshot::a_snapshot_of_the_server_is_seen_as_a_whole::<$kind>();
            }

            #[test]
            fn rows_of_one_managed_key_are_told_and_one_is_stored() {
                shared_keys::rows_of_one_managed_key_are_told_and_one_is_stored::<$kind>();
            }

            #[test]
            fn a_key_that_changes_its_spelling_alone_is_spelled_so_after_one_run() {
                shared_keys::a_key_that_changes_its_spelling_alone_is_spelled_so_after_one_run::<$kind>();
            }

            #[test]
            fn rows_of_a_condition_are_made_level() {
                mapped::rows_of_a_condition_are_level::<$kind>();
            }

            #[test]
            fn what_is_no_condition_stops_its_table_alone() {
                mapped::what_is_no_condition_stops_its_table::<$kind>();
            }

            #[test]
            fn rows_that_a_conversion_makes_equal_are_counted() {
                mapped::rows_that_a_conversion_makes_equal_are_counted::<$kind>();
            }

            #[test]
            fn unique_values_that_change_places_arrive() {
                unique::unique_values_change_places::<$kind>();
            }

            #[test]
            fn columns_come_and_go() {
                drift::columns_come_and_go::<$kind>();
            }

            #[test]
            fn columns_change() {
                drift::columns_change::<$kind>();
            }

            #[test]
            fn a_column_goes_meanwhile() {
                drift::a_column_goes_meanwhile::<$kind>();
            }

            #[test]
            fn large_things_take_little_memory() {
                large::large_things_take_little_memory::<$kind>();
            }

            #[test]
            fn a_thousand_columns_come_whole() {
                large::a_thousand_columns_come_whole::<$kind>();
            }

            #[test]
            fn a_thousand_tables_are_made_level() {
                large::a_thousand_tables_are_made_level::<$kind>();
            }
        }
    };
}

/// What a kind that is written to must do.
macro_rules! written {
    ($name:ident, $kind:ty) => {
        mod $name {
            use super::*;

            #[test]
            fn rows_are_stored_as_given_and_changed_where_they_are_expected() {
                written::rows_are_stored_as_given_and_changed_where_they_are_expected::<$kind>();
            }

            #[test]
            fn one_of_several_rows_of_a_key_goes_beside_another_alone() {
                crate::written::one_of_several_rows_of_a_key_goes_beside_another_alone::<$kind>();
            }
            #[test]
            fn a_refused_row_undoes_no_other() {
                written::a_refused_row_undoes_no_other::<$kind>();
            }

            #[test]
            fn who_holds_a_unique_value_is_told() {
                written::who_holds_a_unique_value_is_told::<$kind>();
            }

            #[test]
            fn unique_values_that_rows_exchange_arrive() {
                written::unique_values_that_rows_exchange_arrive::<$kind>();
            }

            #[test]
            fn deletes_tell_what_they_would_take_along() {
                along::deletes_tell_what_they_would_take_along::<$kind>();
            }

            #[test]
            fn rows_of_a_tree_go_together() {
                along::rows_of_a_tree_go_together::<$kind>();
            }

            #[test]
            fn a_row_with_a_delete_trigger_is_not_taken_out_for_a_moment() {
                along::a_row_with_a_delete_trigger_is_not_taken_out_for_a_moment::<$kind>();
            }

            #[test]
            fn rows_without_a_key_are_counted() {
                written::rows_without_a_key_are_counted::<$kind>();
            }

            #[test]
            fn constraints_that_are_put_off_undo_no_other_row() {
                written::constraints_that_are_put_off_undo_no_other_row::<$kind>();
            }

            #[test]
            fn what_a_table_does_not_keep_as_given_is_refused() {
                written::what_a_table_does_not_keep_as_given_is_refused::<$kind>();
            }

            #[test]
            fn notes_are_kept_with_the_rows() {
                written::notes_are_kept_with_the_rows::<$kind>();
            }

            #[test]
            fn what_is_held_is_one_transaction() {
                written::what_is_held_is_one_transaction::<$kind>();
            }

            #[test]
            fn what_others_commit_is_seen_where_all_is_one_transaction() {
                written::what_others_commit_is_seen_where_all_is_one_transaction::<$kind>();
            }

            #[test]
            fn large_values_are_stored() {
                written::large_values_are_stored::<$kind>();
            }

            #[test]
            fn an_application_that_writes_meanwhile_loses_nothing() {
                written::an_application_that_writes_meanwhile_loses_nothing::<$kind>();
            }

            #[test]
            fn many_rows_are_written() {
                written::many_rows_are_written::<$kind>();
            }
        }
    };
}

conformance!(sqlite_conforms, sqlite::SqliteKind);
conformance!(postgres_conforms, postgres::PostgresKind);
conformance!(mariadb_conforms, mariadb::MariaDbKind);
written!(sqlite_is_written, sqlite::SqliteKind);
written!(postgres_is_written, postgres::PostgresKind);
written!(mariadb_is_written, mariadb::MariaDbKind);
