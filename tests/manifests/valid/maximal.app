maximal Some("9999.9.9") instances=10 connections=1000 keep_alive=90s
/users/:user_id/... -> maximal-1
/users -> maximal-1
/plain -> maximal-1
/inline/* -> inline-component
/robots.txt -> static response, 404 Not Found
component maximal-1
  environment [("VAR", "val")]
  variable token=none
  variable url=https://example.com/users
  stores ["default", "my_store"] ["default"]
  models ["llama2-chat"]
  https://example.com None: true
  http://example.com None: false
  http://www.example.com Some(8999): true
  redis://10.1.2.3 None: true
  itself: true
  Files { folders: Mounts([]), copies: {"": {"assets/a.txt": FileToCopy { named: "assets/a.txt", real: "assets/a.txt" }}, "/assets": {"a.txt": FileToCopy { named: "assets/a.txt", real: "assets/a.txt" }, "b.md": FileToCopy { named: "assets/b.md", real: "assets/b.md" }}, "/etc": {"c.md": FileToCopy { named: "assets/b.md", real: "assets/b.md" }}} }
  door Some(Standard) deadline 5s instances 2 requests 1
component private
  environment []
  stores [] []
  models []
  https://example.com None: false
  http://example.com None: false
  http://www.example.com Some(8999): false
  redis://10.1.2.3 None: false
  itself: false
  Files { folders: Mounts([]), copies: {} }
  door None deadline 5s instances 16 requests by interface
component inline-component
  environment [("A", "1")]
  stores [] []
  models []
  https://example.com None: false
  http://example.com None: false
  http://www.example.com Some(8999): false
  redis://10.1.2.3 None: false
  itself: false
  Files { folders: Mounts([]), copies: {} }
  door None deadline 5s instances 16 requests by interface
