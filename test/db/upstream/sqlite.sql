-- table alembic_version of alembic_version
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)

-- table cached_images of cached_images
CREATE TABLE cached_images (
	id INTEGER NOT NULL, 
	image_id VARCHAR(36) NOT NULL, 
	last_accessed DATETIME NOT NULL, 
	last_modified DATETIME NOT NULL, 
	size BIGINT NOT NULL, 
	hits INTEGER NOT NULL, 
	checksum VARCHAR(32), 
	node_reference_id INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(node_reference_id) REFERENCES node_reference (node_reference_id), 
	CONSTRAINT ix_cached_images_image_id_node_reference_id UNIQUE (image_id, node_reference_id)
)

-- index checksum_image_idx of images
CREATE INDEX checksum_image_idx ON images (checksum)

-- index created_at_image_idx of images
CREATE INDEX created_at_image_idx ON images (created_at)

-- table image_locations of image_locations
CREATE TABLE image_locations (
	id INTEGER NOT NULL, 
	image_id VARCHAR(36) NOT NULL, 
	value TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	deleted_at DATETIME, 
	deleted BOOLEAN NOT NULL, 
	meta_data TEXT, 
	status VARCHAR(30) DEFAULT 'active' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(image_id) REFERENCES images (id), 
	CHECK (deleted IN (0, 1))
)

-- table image_members of image_members
CREATE TABLE image_members (
	id INTEGER NOT NULL, 
	image_id VARCHAR(36) NOT NULL, 
	member VARCHAR(255) NOT NULL, 
	can_share BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	deleted_at DATETIME, 
	deleted BOOLEAN NOT NULL, 
	status VARCHAR(20) DEFAULT 'pending' NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(image_id) REFERENCES images (id), 
	CONSTRAINT image_members_image_id_member_deleted_at_key UNIQUE (image_id, member, deleted_at), 
	CHECK (can_share IN (0, 1)), 
	CHECK (deleted IN (0, 1))
)

-- table image_properties of image_properties
CREATE TABLE image_properties (
	id INTEGER NOT NULL, 
	image_id VARCHAR(36) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	value TEXT, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	deleted_at DATETIME, 
	deleted BOOLEAN NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(image_id) REFERENCES images (id), 
	CONSTRAINT ix_image_properties_image_id_name UNIQUE (image_id, name), 
	CHECK (deleted IN (0, 1))
)

-- table image_tags of image_tags
CREATE TABLE image_tags (
	id INTEGER NOT NULL, 
	image_id VARCHAR(36) NOT NULL, 
	value VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	deleted_at DATETIME, 
	deleted BOOLEAN NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(image_id) REFERENCES images (id), 
	CHECK (deleted IN (0, 1))
)

-- table images of images
CREATE TABLE "images" (
	id VARCHAR(36) NOT NULL, 
	name VARCHAR(255), 
	size INTEGER, 
	status VARCHAR(30) NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	deleted_at DATETIME, 
	deleted BOOLEAN NOT NULL, 
	disk_format VARCHAR(20), 
	container_format VARCHAR(20), 
	checksum VARCHAR(32), 
	owner VARCHAR(255), 
	min_disk INTEGER NOT NULL, 
	min_ram INTEGER NOT NULL, 
	protected BOOLEAN DEFAULT 0 NOT NULL, 
	virtual_size INTEGER, 
	visibility VARCHAR(9) DEFAULT 'shared' NOT NULL, 
	os_hidden BOOLEAN DEFAULT 0 NOT NULL, 
	os_hash_algo VARCHAR(64), 
	os_hash_value VARCHAR(128), 
	PRIMARY KEY (id)
)

-- index ix_image_locations_deleted of image_locations
CREATE INDEX ix_image_locations_deleted ON image_locations (deleted)

-- index ix_image_locations_image_id of image_locations
CREATE INDEX ix_image_locations_image_id ON image_locations (image_id)

-- index ix_image_members_deleted of image_members
CREATE INDEX ix_image_members_deleted ON image_members (deleted)

-- index ix_image_members_image_id of image_members
CREATE INDEX ix_image_members_image_id ON image_members (image_id)

-- index ix_image_members_image_id_member of image_members
CREATE INDEX ix_image_members_image_id_member ON image_members (image_id, member)

-- index ix_image_properties_deleted of image_properties
CREATE INDEX ix_image_properties_deleted ON image_properties (deleted)

-- index ix_image_properties_image_id of image_properties
CREATE INDEX ix_image_properties_image_id ON image_properties (image_id)

-- index ix_image_tags_image_id of image_tags
CREATE INDEX ix_image_tags_image_id ON image_tags (image_id)

-- index ix_image_tags_image_id_tag_value of image_tags
CREATE INDEX ix_image_tags_image_id_tag_value ON image_tags (image_id, value)

-- index ix_images_deleted of images
CREATE INDEX ix_images_deleted ON images (deleted)

-- index ix_metadef_namespaces_owner of metadef_namespaces
CREATE INDEX ix_metadef_namespaces_owner ON metadef_namespaces (owner)

-- index ix_metadef_ns_res_types_namespace_id of metadef_namespace_resource_types
CREATE INDEX ix_metadef_ns_res_types_namespace_id ON metadef_namespace_resource_types (namespace_id)

-- index ix_metadef_objects_name of metadef_objects
CREATE INDEX ix_metadef_objects_name ON metadef_objects (name)

-- index ix_metadef_properties_name of metadef_properties
CREATE INDEX ix_metadef_properties_name ON metadef_properties (name)

-- index ix_metadef_tags_name of metadef_tags
CREATE INDEX ix_metadef_tags_name ON metadef_tags (name)

-- index ix_tasks_deleted of tasks
CREATE INDEX ix_tasks_deleted ON tasks (deleted)

-- index ix_tasks_image_id of tasks
CREATE INDEX ix_tasks_image_id ON tasks (image_id)

-- index ix_tasks_owner of tasks
CREATE INDEX ix_tasks_owner ON tasks (owner)

-- index ix_tasks_status of tasks
CREATE INDEX ix_tasks_status ON tasks (status)

-- index ix_tasks_type of tasks
CREATE INDEX ix_tasks_type ON tasks (type)

-- index ix_tasks_updated_at of tasks
CREATE INDEX ix_tasks_updated_at ON tasks (updated_at)

-- table metadef_namespace_resource_types of metadef_namespace_resource_types
CREATE TABLE metadef_namespace_resource_types (
	resource_type_id INTEGER NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	properties_target VARCHAR(80), 
	prefix VARCHAR(80), 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	PRIMARY KEY (resource_type_id, namespace_id), 
	FOREIGN KEY(namespace_id) REFERENCES metadef_namespaces (id), 
	FOREIGN KEY(resource_type_id) REFERENCES metadef_resource_types (id)
)

-- table metadef_namespaces of metadef_namespaces
CREATE TABLE metadef_namespaces (
	id INTEGER NOT NULL, 
	namespace VARCHAR(80) NOT NULL, 
	display_name VARCHAR(80), 
	description TEXT, 
	visibility VARCHAR(32), 
	protected BOOLEAN, 
	owner VARCHAR(255) NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	PRIMARY KEY (id), 
	CONSTRAINT uq_metadef_namespaces_namespace UNIQUE (namespace), 
	CHECK (protected IN (0, 1))
)

-- table metadef_objects of metadef_objects
CREATE TABLE metadef_objects (
	id INTEGER NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	description TEXT, 
	required TEXT, 
	json_schema TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(namespace_id) REFERENCES metadef_namespaces (id), 
	CONSTRAINT uq_metadef_objects_namespace_id_name UNIQUE (namespace_id, name)
)

-- table metadef_properties of metadef_properties
CREATE TABLE metadef_properties (
	id INTEGER NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	json_schema TEXT NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(namespace_id) REFERENCES metadef_namespaces (id), 
	CONSTRAINT uq_metadef_properties_namespace_id_name UNIQUE (namespace_id, name)
)

-- table metadef_resource_types of metadef_resource_types
CREATE TABLE metadef_resource_types (
	id INTEGER NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	protected BOOLEAN NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	PRIMARY KEY (id), 
	CONSTRAINT uq_metadef_resource_types_name UNIQUE (name), 
	CHECK (protected IN (0, 1))
)

-- table metadef_tags of metadef_tags
CREATE TABLE metadef_tags (
	id INTEGER NOT NULL, 
	namespace_id INTEGER NOT NULL, 
	name VARCHAR(80) NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(namespace_id) REFERENCES metadef_namespaces (id), 
	CONSTRAINT uq_metadef_tags_namespace_id_name UNIQUE (namespace_id, name)
)

-- table node_reference of node_reference
CREATE TABLE node_reference (
	node_reference_id INTEGER NOT NULL, 
	node_reference_url VARCHAR(255) NOT NULL, 
	PRIMARY KEY (node_reference_id), 
	CONSTRAINT uq_node_reference_node_reference_url UNIQUE (node_reference_url)
)

-- index os_hash_value_image_idx of images
CREATE INDEX os_hash_value_image_idx ON images (os_hash_value)

-- index os_hidden_image_idx of images
CREATE INDEX os_hidden_image_idx ON images (os_hidden)

-- index owner_image_idx of images
CREATE INDEX owner_image_idx ON images (owner)

-- index sqlite_autoindex_alembic_version_1 of alembic_version

-- index sqlite_autoindex_cached_images_1 of cached_images

-- index sqlite_autoindex_image_members_1 of image_members

-- index sqlite_autoindex_image_properties_1 of image_properties

-- index sqlite_autoindex_images_1 of images

-- index sqlite_autoindex_metadef_namespace_resource_types_1 of metadef_namespace_resource_types

-- index sqlite_autoindex_metadef_namespaces_1 of metadef_namespaces

-- index sqlite_autoindex_metadef_objects_1 of metadef_objects

-- index sqlite_autoindex_metadef_properties_1 of metadef_properties

-- index sqlite_autoindex_metadef_resource_types_1 of metadef_resource_types

-- index sqlite_autoindex_metadef_tags_1 of metadef_tags

-- index sqlite_autoindex_node_reference_1 of node_reference

-- index sqlite_autoindex_task_info_1 of task_info

-- index sqlite_autoindex_tasks_1 of tasks

-- table task_info of task_info
CREATE TABLE task_info (
	task_id VARCHAR(36) NOT NULL, 
	input TEXT, 
	result TEXT, 
	message TEXT, 
	PRIMARY KEY (task_id), 
	FOREIGN KEY(task_id) REFERENCES tasks (id)
)

-- table tasks of tasks
CREATE TABLE tasks (
	id VARCHAR(36) NOT NULL, 
	type VARCHAR(30) NOT NULL, 
	status VARCHAR(30) NOT NULL, 
	owner VARCHAR(255) NOT NULL, 
	expires_at DATETIME, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME, 
	deleted_at DATETIME, 
	deleted BOOLEAN NOT NULL, image_id VARCHAR(36), request_id VARCHAR(64), user_id VARCHAR(64), 
	PRIMARY KEY (id), 
	CHECK (deleted IN (0, 1))
)

-- index updated_at_image_idx of images
CREATE INDEX updated_at_image_idx ON images (updated_at)

-- index visibility_image_idx of images
CREATE INDEX visibility_image_idx ON images (visibility)

-- alembic_version: 2024_1_contract01
