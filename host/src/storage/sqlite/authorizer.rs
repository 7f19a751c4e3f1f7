//! What a guest's statements may do. SQLite asks for each action while it compiles a statement.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// Pragmas that read, or change only the guest's own database or connection.
const PRAGMAS: [&str; 33] = [
    "application_id",
    "case_sensitive_like",
    "collation_list",
    "compile_options",
    "count_changes",
    "data_version",
    "defer_foreign_keys",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "foreign_keys",
    "freelist_count",
    "full_column_names",
    "function_list",
    "ignore_check_constraints",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "legacy_alter_table",
    "module_list",
    "optimize",
    "page_count",
    "pragma_list",
    "quick_check",
    "recursive_triggers",
    "reverse_unordered_selects",
    "short_column_names",
    "synchronous",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];
/// Pragmas that may be read, and not set.
const READABLE: [&str; 8] = [
    "auto_vacuum",
    "busy_timeout",
    "cache_size",
    "journal_mode",
    "max_page_count",
    "page_size",
    "schema_version",
    "temp_store",
];
/// Hints about resources that the host settles: setting them has no effect and is no error.
const IGNORED: [&str; 7] = [
    "analysis_limit",
    "busy_timeout",
    "cache_size",
    "cache_spill",
    "mmap_size",
    "temp_store",
    "wal_autocheckpoint",
];
/// Modules of virtual tables that are part of the database.
const MODULES: [&str; 7] = ["fts3", "fts4", "fts4aux", "fts5", "fts5vocab", "rtree", "rtree_i32"];
/// Functions that reach out of the database.
const FUNCTIONS: [&str; 2] = ["fts3_tokenizer", "load_extension"];

/// Whether a statement may take an action.
///
/// # Errors
/// It may not, with the reason.
pub(super) fn authorize(context: AuthContext<'_>) -> Result<Authorization, String> {
    match context.action {
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Err("ATTACH, DETACH and VACUUM are not permitted: a connection has one database; open \
             another one by its label"
                .into())
        }
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        AuthAction::CreateVtable { module_name, .. } if !is_in(&MODULES, module_name) => {
            Err(format!("virtual tables of the module {module_name} are not permitted"))
        }
        AuthAction::Function { function_name } if is_in(&FUNCTIONS, function_name) => {
            Err(format!("the function {function_name} is not permitted"))
        }
        AuthAction::Unknown { .. } => Err("this statement is not permitted".into()),
        _ => Ok(Authorization::Allow),
    }
}

fn pragma(name: &str, value: Option<&str>) -> Result<Authorization, String> {
    let sets_wal = is_in(&["journal_mode"], name)
        && value.is_some_and(|value| value.eq_ignore_ascii_case("wal"));
    if is_in(&PRAGMAS, name) || sets_wal || value.is_none() && is_in(&READABLE, name) {
        Ok(Authorization::Allow)
    } else if is_in(&IGNORED, name) {
        Ok(Authorization::Ignore)
    } else {
        Err(format!("PRAGMA {name} is not permitted"))
    }
}

fn is_in(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}
