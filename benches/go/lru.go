package main

import (
	"container/list"
	"sync"
)

// lru caches the responses of the requests that were used last.
type lru struct {
	mutex    sync.Mutex
	capacity int
	entries  map[string]*list.Element
	// From the most to the least recently used.
	order *list.List
}

type entry struct {
	request  string
	response []byte
}

func newLRU(capacity int) *lru {
	return &lru{capacity: capacity, entries: make(map[string]*list.Element), order: list.New()}
}

func (c *lru) get(request string) ([]byte, bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	element, found := c.entries[request]
	if !found {
		return nil, false
	}
	c.order.MoveToFront(element)
	return element.Value.(entry).response, true
}

func (c *lru) put(request string, response []byte) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if element, found := c.entries[request]; found {
		c.order.MoveToFront(element)
		return
	}
	c.entries[request] = c.order.PushFront(entry{request, response})
	if c.order.Len() > c.capacity {
		oldest := c.order.Remove(c.order.Back()).(entry)
		delete(c.entries, oldest.request)
	}
}
