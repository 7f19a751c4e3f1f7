mixed None instances=2000 connections=4096 keep_alive=75s
/... -> both
/old -> both
component both
  environment []
  stores [] []
  models []
  https://example.com None: true
  http://example.com None: true
  http://www.example.com Some(8999): false
  redis://10.1.2.3 None: false
  itself: false
  Files { folders: Mounts([]), copies: {} }
  door None deadline 30s instances 16 requests by interface
