orders Some("1.2.0") instances=2000 connections=4096 keep_alive=75s
/orders/... -> order-api
/ -> home
component order-api
  environment [("LOG", "info")]
  variable region=eu
  stores ["default"] []
  models []
  https://example.com None: true
  http://example.com None: true
  http://www.example.com Some(8999): true
  redis://10.1.2.3 None: true
  itself: true
  Files { folders: Mounts([]), copies: {} }
  door None deadline 30s instances 16 requests by interface
component home
  environment []
  stores [] []
  models []
  https://example.com None: true
  http://example.com None: true
  http://www.example.com Some(8999): true
  redis://10.1.2.3 None: false
  itself: true
  Files { folders: Mounts([("", "assets")]), copies: {} }
  door None deadline 30s instances 16 requests by interface
