-- Roles, permissions, who has which role.
CREATE TABLE permissions (
  name TEXT PRIMARY KEY
) STRICT;
CREATE TABLE roles (
  name TEXT PRIMARY KEY
) STRICT;
CREATE TABLE role_permissions (
  role TEXT NOT NULL REFERENCES roles (name),
  permission TEXT NOT NULL REFERENCES permissions (name),
  PRIMARY KEY (role, permission)
) STRICT;
CREATE TABLE grants (
  user_id TEXT NOT NULL,
  role TEXT NOT NULL REFERENCES roles (name),
  granted_by TEXT NOT NULL, -- 'user <id>' or 'system <name>'
  granted_us INTEGER NOT NULL,
  PRIMARY KEY (user_id, role)
) STRICT;
CREATE INDEX grants_by_role ON grants (role);
CREATE TABLE inbox (
  source TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT;
CREATE TABLE dead_letter (
  id INTEGER PRIMARY KEY,
  subject TEXT NOT NULL,
  payload BLOB NOT NULL,
  error TEXT NOT NULL,
  created_us INTEGER NOT NULL
) STRICT;
INSERT INTO permissions (name) VALUES
  ('view_stocks'), ('order_stocks'), ('manage_own_portfolio'), ('manage_own_watchlist'), ('manage_own_accounts'),
  ('manage_own_profile'), ('view_users'), ('view_admin_dashboard'), ('view_audit_logs'), ('deactivate_users'),
  ('reactivate_users'), ('manage_roles');
INSERT INTO roles (name) VALUES ('member'), ('admin');
INSERT INTO role_permissions (role, permission) VALUES
  ('member', 'view_stocks'), ('member', 'order_stocks'), ('member', 'manage_own_portfolio'),
  ('member', 'manage_own_watchlist'), ('member', 'manage_own_accounts'), ('member', 'manage_own_profile'),
  ('admin', 'manage_own_profile'), ('admin', 'view_users'), ('admin', 'view_admin_dashboard'),
  ('admin', 'view_audit_logs'), ('admin', 'deactivate_users'), ('admin', 'reactivate_users'), ('admin', 'manage_roles');
