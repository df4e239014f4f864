# How does a Rails application come to its database? As Rails does it: by config/database.yml, then the initializers.
require "active_record"
require "yaml"

ActiveRecord::Base.configurations = ActiveSupport::ConfigurationFile.parse("config/database.yml")
ActiveRecord::Base.establish_connection(ENV.fetch("RAILS_ENV", "development").to_sym)
Dir["config/initializers/*.rb"].sort.each { |file| load File.expand_path(file) }
Dir["app/models/*.rb"].sort.each { |file| load File.expand_path(file) }
