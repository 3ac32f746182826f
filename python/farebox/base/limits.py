"""Every bound in the system, in one place (M10). Names end in their unit; crossing one is a clear error."""

# Requests from clients
request_line_bytes_max = 8190
header_bytes_max = 8190
headers_max = 100
request_body_bytes_max = 50 * 2**20
request_body_plain_bytes_max = 2**20
request_body_unread_bytes_max = 128 * 2**10
request_bodies_bytes_total_max = 1 * 2**30
header_timeout_s = 15.0
body_timeout_s = 120.0
keepalive_timeout_s = 75.0
json_depth_max = 128
model_name_bytes_max = 256
api_key_bytes_max = 256
scan_in_thread_bytes_min = 2**20
client_write_timeout_s = 60.0
linger_timeout_s = 2.0
drain_unasked_s = 2.0
accept_backlog = 4096
hosts_remembered_max = 1024

# Answers
answer_held_bytes_max = 2**20
response_head_bytes_max = 64 * 2**10
response_headers_max = 256
informational_heads_max = 16
upstream_request_id_bytes_max = 128
retry_after_s_max = 86_400
inflated_bytes_max = 256 * 2**20
event_bytes_max = 64 * 2**20
usage_raw_bytes_max = 4096
relay_buffer_bytes_max = 256 * 2**10

# Upstream connections
upstream_connections_max = 2048
upstream_idle_connections_max = 256
upstream_idle_timeout_s = 55.0
upstream_connect_timeout_s = 10.0
upstream_first_byte_timeout_s = 360.0
upstream_idle_stream_timeout_s = 300.0
upstream_total_timeout_s = 3600.0
upstream_rest_max_s = 300.0
upstream_alternatives_max = 64

# Exchanges
exchanges_open_max = 20_000
drain_after_client_gone_s = 60.0
drains_after_client_gone_max = 64
shutdown_drain_s = 30.0
shutdown_return_s = 10.0
assumed_output_tokens = 4096
stream_slice_output_tokens = 512

# Leases
lease_wait_s = 2.0
lease_waiters_per_user_max = 2048
lease_idle_return_s = 2.0
beat_interval_s = 5.0
fence_after_s = 600.0
abandon_after_s = 900.0
beat_look_interval_s = 15.0
beat_looks_gap_max_s = 60.0
quarantined_per_user_max = 20
written_off_per_user_pico_max = 1 * 10**12

# Journal
frame_bytes_max = 64 * 2**10
segment_bytes_max = 64 * 2**20
prices_frame_bytes_max = 4 * 2**20
price_versions_carried_max = 4
journal_disk_free_bytes_min = 16 * 2**20
journal_unsynced_bytes_max = 64 * 2**20
settle_reserve_bytes = 8 * 2**10
journal_bytes_max = 8 * 2**30
sync_interval_s = 0.010
progress_interval_s = 1.0

# Store and writer
users_per_transaction_max = 100
records_per_batch_max = 2000
records_at_once_min = 16
batch_bytes = 2**20
apply_interval_s = 0.2
changes_poll_interval_s = 0.25
store_timeout_s = 10.0
store_select_timeout_s = 5.0
store_abort_timeout_s = 2.0
store_open_timeout_s = 60.0
clock_apart_max_s = 300.0
store_connections_max = 64
store_sessions_noted_max = 1000
store_conflict_attempts_max = 8
store_conflict_pause_s = 0.02
sqlite_busy_timeout_s = 30.0
sqlite_check_bytes_max = 64 * 2**20
sqlite_log_bytes_max = 64 * 2**20
sqlite_page_bytes = 8 * 2**10
sqlite_cache_bytes_max = 32 * 2**20
sqlite_checkpoint_bytes = 32 * 2**20
changes_kept_max = 100_000
changes_numbered_at_once_max = 1000
accounts_page_max = 500
exchanges_asked_at_once_max = 250
record_bytes_max = 64 * 2**10
records_page_max = 500
store_retry_max_s = 5.0
rpc_message_bytes_max = 16 * 2**20
rpc_pending_max = 10_000
rpc_connections_max = 256
rpc_reconnect_max_s = 1.0
rpc_connect_wait_s = 1.0
wants_remembered_max = 10_000
request_log_ttl_days = 30
dead_letter_bytes_max = 64 * 2**20
tidy_interval_s = 300.0
audit_page_rows = 500
findings_max = 1000
journal_reads_max = 20
conservation_interval_s = 300.0
conservation_share = 10
adopt_wait_s = 60.0
claims_interval_s = 1.0
claims_per_round_max = 1000

# Purchases and the console
orders_open_per_user_max = 20
payment_amount_max = 10**13
webhook_body_bytes_max = 256 * 2**10
console_body_bytes_max = 64 * 2**10
console_body_timeout_s = 15.0
console_store_retry_s = 1.0
console_text_chars_max = 500
console_page_max = 200
console_requests_open_max = 64
log_rows_searched_max = 5000
console_figures_kept_s = 10.0
console_figures_wait_s = 2.0
live_exchanges_max = 200
keys_per_user_max = 100
login_failures_max = 10
login_lockout_s = 300.0
login_names_remembered_max = 10_000
password_checks_waiting_max = 32
password_chars_min = 12
password_chars_max = 200
session_lasts_s = 12 * 3600.0

# Supervisor and its children
unix_path_bytes_max = 107
control_line_bytes_max = 2**20
control_answer_s = 10.0
heartbeat_interval_s = 0.5
hung_after_s = 5.0
replacement_start_s = 60.0
replacement_attempts_max = 3
silent_start_s = 2.0
memory_look_interval_s = 0.5
memory_connections_share = 0.80
memory_refuse_share = 0.90
memory_cut_share = 0.95
memory_relief_share = 0.03
memory_cuts_at_once_share = 0.125
smoke_answer_s = 120.0
smoke_booking_s = 15.0

# Accounts and rates
account_cache_entries_max = 200_000
unknown_key_cache_entries_max = 10_000
unknown_key_cache_s = 5.0
requests_per_minute = 600
requests_per_minute_max = 10**6

# Import and export
legacy_document_bytes_max = 48 * 2**20
legacy_array_bytes_max = 256 * 2**20
import_users_page = 500
import_rows_page = 5000
import_records_page = 100
import_logs_per_transaction_max = 500
import_named_max = 1000
export_page_rows = 1000

# Subscriptions and transfers
subscription_invoices_kept_max = 60
stale_retries_max = 8
reason_chars_max = 300
wallet_rows_offset_max = 10_000
